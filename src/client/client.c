/* client.c - HTTP by libcurl. An answer that is too long, slow or missing gives status 0 and
 * what is wrong with it. */
#include "client/client.h"

#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>

static size_t body_take(char *data, size_t size, size_t count, void *context)
{
        struct client_answer *answer = context;
        size_t len = size * count;
        if (len > CLIENT_BODY_MAX - answer->body_len)
                return 0;
        char *body = realloc(answer->body, answer->body_len + len + 1);
        if (body == NULL)
                return 0;
        memcpy(body + answer->body_len, data, len);
        answer->body = body;
        answer->body_len += len;
        body[answer->body_len] = '\0';
        return len;
}

static void answer_fail(struct client_answer *answer, const char *why)
{
        answer->status = 0;
        snprintf(answer->error, sizeof answer->error, "%s", why);
}

static bool ask(const char *node, const char *host, const char *path, const struct bytes *post,
                unsigned timeout_ms, struct client_answer *answer)
{
        *answer = (struct client_answer){.body = calloc(1, 1)};
        char url[1024];
        char header[300];
        if (snprintf(url, sizeof url, "http://%s%s", node, path) >= (int)sizeof url) {
                answer_fail(answer, "the path is too long");
                return false;
        }
        CURL *curl = curl_easy_init();
        if (curl == NULL || answer->body == NULL) {
                curl_easy_cleanup(curl);
                answer_fail(answer, "out of memory");
                return false;
        }
        struct curl_slist *headers = curl_slist_append(NULL, "Expect:");
        if (host != NULL) {
                snprintf(header, sizeof header, "Host: %s", host);
                headers = curl_slist_append(headers, header);
        }
        curl_easy_setopt(curl, CURLOPT_URL, url);
        curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
        curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
        curl_easy_setopt(curl, CURLOPT_NOPROXY, "*");
        curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, (long)timeout_ms);
        curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, body_take);
        curl_easy_setopt(curl, CURLOPT_WRITEDATA, answer);
        if (post != NULL) {
                curl_easy_setopt(curl, CURLOPT_POST, 1L);
                curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)post->len);
                curl_easy_setopt(curl, CURLOPT_POSTFIELDS,
                                 post->len == 0 ? "" : (const char *)post->ptr);
        }
        CURLcode code = curl_easy_perform(curl);
        if (code == CURLE_OK)
                curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &answer->status);
        else
                answer_fail(answer, curl_easy_strerror(code));
        curl_slist_free_all(headers);
        curl_easy_cleanup(curl);
        return code == CURLE_OK;
}

bool client_get(const char *node, const char *path, unsigned timeout_ms,
                struct client_answer *ret_answer)
{
        return ask(node, NULL, path, NULL, timeout_ms, ret_answer);
}

bool client_get_host(const char *node, const char *host, const char *path, unsigned timeout_ms,
                     struct client_answer *ret_answer)
{
        return ask(node, host, path, NULL, timeout_ms, ret_answer);
}

bool client_post(const char *node, const char *path, struct bytes body, unsigned timeout_ms,
                 struct client_answer *ret_answer)
{
        return ask(node, NULL, path, &body, timeout_ms, ret_answer);
}

void client_answer_fini(struct client_answer *answer)
{
        free(answer->body);
        answer->body = NULL;
        answer->body_len = 0;
}

char *client_escape(const char *text)
{
        char *escaped = malloc(strlen(text) * 3 + 1);
        char *at = escaped;
        if (escaped == NULL)
                return NULL;
        for (const char *from = text; *from != '\0'; from++) {
                uint8_t c = (uint8_t)*from;
                bool plain = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') ||
                             (c >= 'A' && c <= 'Z') || strchr("-._~", c) != NULL;
                if (plain)
                        *at++ = (char)c;
                else
                        at += snprintf(at, 4, "%%%02X", c);
        }
        *at = '\0';
        return escaped;
}
