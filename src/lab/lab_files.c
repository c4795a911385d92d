/* lab_files.c - writes everything under .lab that the servers read: certificates, the geo database,
 * the topology, the zone, and each server's configuration in its own syntax. Configurations are
 * written anew at every start; certificates and data stay. */
#include "base/hash.h"
#include "base/heap.h"
#include "geo/geo_write.h"
#include "lab/lab_priv.h"
#include "pki/pki.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

static bool disk_error(const char *path)
{
        int number = errno;
        if (number == ENOSPC || number == EDQUOT)
                return lab_error("%s: the disk is full: make room, then try again", path);
        return lab_error("%s cannot be written: %s", path, strerror(number));
}

bool lab_dir_make(const char *dir)
{
        if (mkdir(dir, 0755) == 0 || errno == EEXIST)
                return true;
        return disk_error(dir);
}

bool lab_file_write(const char *path, struct bytes data)
{
        char aside[LAB_PATH_MAX];
        if (!lab_path(aside, "%s.new", path))
                return false;
        int fd = open(aside, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
        if (fd < 0)
                return disk_error(aside);
        ssize_t written = write(fd, data.ptr, data.len);
        if (written >= 0 && (size_t)written < data.len)
                errno = ENOSPC;
        bool whole = written == (ssize_t)data.len;
        int number = errno;
        close(fd);
        errno = number;
        if (!whole || rename(aside, path) != 0)
                return disk_error(path);
        return true;
}

/* Writes a file of a region, or of the lab itself (region NULL). */
static bool text_save(const struct lab *lab, const struct lab_region *region, const char *name,
                      const struct buffer *text)
{
        char path[LAB_PATH_MAX];
        if (text->err != ERR_NONE)
                return lab_error("out of memory");
        if (region == NULL)
                return lab_path(path, "%s/%s", lab->dir, name) &&
                       lab_file_write(path, buffer_view(text));
        return lab_path(path, "%s/%s/%s", lab->dir, region->name, name) &&
               lab_file_write(path, buffer_view(text));
}

static bool region_dirs(const struct lab *lab, const struct lab_region *region)
{
        static const char *const names[] = {
                "",      "/run",        "/run/knot",  "/run/nginx",      "/log",
                "/data", "/data/redis", "/data/knot", "/data/meridiand",
        };
        char path[LAB_PATH_MAX];
        for (size_t i = 0; i < COUNT_OF(names); i++) {
                if (!lab_path(path, "%s/%s%s", lab->dir, region->name, names[i]) ||
                    !lab_dir_make(path))
                        return false;
        }
        return true;
}

/* ---- certificates ---- */

static bool certificates(const struct lab *lab)
{
        static const struct pki_validity ca_validity = {-3600, (int64_t)PKI_DAYS_CA * 86400};
        static const struct pki_validity validity = {-3600, (int64_t)PKI_DAYS_NODE * 86400};
        struct pki_error error;
        char ca[LAB_PATH_MAX];
        char dir[LAB_PATH_MAX];
        char file[LAB_PATH_MAX];
        if (!lab_path(ca, "%s/pki", lab->dir))
                return false;
        enum err err = pki_ca_make(ca, LAB_CLUSTER, ca_validity, &error);
        if (err != ERR_NONE && err != ERR_EXISTS)
                return lab_error("%s", error.text);
        for (size_t i = 0; i < LAB_REGIONS; i++) {
                struct pki_identity identity;
                if (!lab_path(dir, "%s/%s", ca, lab_regions[i].name) ||
                    !lab_path(file, "%s/node.crt", dir))
                        return false;
                if (err == ERR_EXISTS && access(file, R_OK) == 0)
                        continue;
                enum err issue = pki_identity_set(&identity, LAB_CLUSTER, lab_regions[i].name,
                                                  (uint32_t)i + 1);
                if (issue == ERR_NONE)
                        issue = pki_node_issue(ca, dir, &identity, validity, &error);
                if (issue != ERR_NONE)
                        return lab_error("%s", error.text);
        }
        return true;
}

/* ---- the geo database ---- */

static const char geo_csv[] =
        "network,country,city,latitude,longitude\n"
        "216.160.83.56/29,US,Milton,47.25,-122.31\n"
        "214.78.120.0/22,US,San Diego,32.72,-117.16\n"
        "81.2.69.142/31,GB,London,51.51,-0.09\n"
        "81.2.69.160/27,GB,London,51.51,-0.09\n"
        "89.160.20.112/28,SE,Linköping,58.42,15.62\n"
        "175.16.199.0/24,CN,Changchun,43.88,125.32\n"
        "214.0.0.0/24,SG,Singapore,1.36,103.99\n"
        "2001:218::/32,JP,,35.69,139.69\n"
        /* The lab's own addresses, so that a query without a client subnet is answered by the
         * region that was asked. */
        "127.10.0.0/16,US,Ashburn,39.04,-77.49\n"
        "127.20.0.0/16,IE,Dublin,53.35,-6.26\n"
        "127.30.0.0/16,SG,Singapore,1.35,103.82\n";

static bool geo_database(const struct lab *lab)
{
        struct heap heap;
        struct buffer out;
        struct geo_write_error error = {0};
        char path[LAB_PATH_MAX];
        heap_init(&heap, 0);
        buffer_init(&out, &heap);
        enum err err =
                geo_write_csv(&heap, bytes_of_str(geo_csv), (uint64_t)time(NULL), &out, &error);
        bool done = err == ERR_NONE;
        if (!done)
                lab_error("the lab's geo database, line %zu: %s", error.line,
                          error.why == NULL ? err_text(err) : error.why);
        done = done && lab_path(path, "%s/geo.mmdb", lab->dir) &&
               lab_file_write(path, buffer_view(&out));
        buffer_fini(&out);
        return done;
}

/* ---- the topology ---- */

struct place {
        const char *country;
        const char *continent;
};

static const struct place places[LAB_REGIONS] = {{"US", "NA"}, {"IE", "EU"}, {"SG", "AS"}};

static void topology_region_text(const struct lab *lab, struct buffer *text, size_t index)
{
        const struct lab_region *region = &lab_regions[index];
        buffer_format(text,
                      "region %s {\n"
                      "        id = %zu\n"
                      "        latitude = %.2f\n"
                      "        longitude = %.2f\n"
                      "        country = %s\n"
                      "        continent = %s\n",
                      region->name, index + 1, region->latitude, region->longitude,
                      places[index].country, places[index].continent);
        if (lab_is_witness(lab, region))
                buffer_format(text, "        role = witness\n");
        else
                buffer_format(text,
                              "        a = [%s]\n"
                              "        backends = [\"%s:%d\", \"%s:%d\"]\n",
                              region->address, region->address, LAB_PORT_BACKEND, region->address,
                              LAB_PORT_BACKEND + 1);
        for (unsigned node = 1; node <= lab_nodes_of(lab, region); node++)
                lab_node_topology(index, node, text);
        buffer_format(text, "}\n\n");
}

static void topology_postgres_text(const struct lab *lab, struct buffer *text)
{
        buffer_format(text, "postgres {\n        nodes = [");
        for (unsigned node = 1; node <= lab->servers; node++)
                for (size_t i = 0; i < (lab->witness ? LAB_REGIONS - 1 : LAB_REGIONS); i++)
                        buffer_format(text, "%s%s-%u", node == 1 && i == 0 ? "" : ", ",
                                      lab_regions[i].name, node);
        buffer_format(text, "]\n"
                            "        automatic = on\n"
                            "        margin = 400ms\n"
                            "}\n\n");
}

static void topology_text(const struct lab *lab, struct buffer *text)
{
        buffer_format(text,
                      "# The lab: three regions on one machine.\n"
                      "cluster = %s\n"
                      "epoch = 1\n\n"
                      "timing {\n"
                      "        suspect_after = 1200ms\n"
                      "        down_after = 1500ms\n"
                      "        election = 1s\n"
                      "        election_heartbeat = 200ms\n"
                      "}\n\n",
                      LAB_CLUSTER);
        for (size_t i = 0; i < LAB_REGIONS; i++)
                topology_region_text(lab, text, i);
        if (lab_postgres_used(lab))
                topology_postgres_text(lab, text);
        buffer_format(text, "zone example.test {\n"
                            "        ttl = 5s\n"
                            "        soa {\n"
                            "                mname = ns1.example.test\n"
                            "                rname = hostmaster.example.test\n"
                            "                minimum = 5s\n"
                            "        }\n"
                            "        name www { policy = nearest }\n");
        for (size_t i = 0; i < LAB_REGIONS; i++)
                if (!lab_is_witness(lab, &lab_regions[i]))
                        buffer_format(text,
                                      "        name api-%s { policy = region; region = %s }\n",
                                      lab_regions[i].label, lab_regions[i].name);
        buffer_format(text, "}\n");
}

/* ---- the servers ---- */

static void meridiand_conf_text(const struct lab *lab, const struct lab_region *region,
                                size_t index, struct buffer *text)
{
        buffer_format(text,
                      "cluster    %s;\n"
                      "region     %s;\n"
                      "node       %zu;\n"
                      "topology   \"%s/topology.conf\";\n"
                      "data_dir   \"%s/%s/data/meridiand\";\n"
                      "run_dir    \"%s/%s/run\";\n"
                      "pki {\n"
                      "        ca    \"%s/pki/%s/ca.crt\";\n"
                      "        cert  \"%s/pki/%s/node.crt\";\n"
                      "        key   \"%s/pki/%s/node.key\";\n"
                      "}\n"
                      "listen {\n"
                      "        link   \"%s:%d\";\n"
                      "        admin  \"%s:%d\";\n"
                      "        locks  \"%s:%d\";\n"
                      "}\n"
                      "geo        \"%s/geo.mmdb\";\n",
                      LAB_CLUSTER, region->name, index + 1, lab->dir, lab->dir, region->name,
                      lab->dir, region->name, lab->dir, region->name, lab->dir, region->name,
                      lab->dir, region->name, region->address, LAB_PORT_LINK, region->address,
                      LAB_PORT_ADMIN, region->address, LAB_PORT_LOCKS, lab->dir);
        if (!lab_is_witness(lab, region))
                buffer_format(text,
                              "redis      \"%s:%d\";\n"
                              "dns        \"%s:%d\";\n"
                              "edge       \"%s:%d\";\n",
                              region->address, LAB_PORT_REDIS, region->address, LAB_PORT_DNS,
                              region->address, LAB_PORT_EDGE);
        lab_postgres_conf(lab, region, 1, text);
        buffer_format(text, "lab {\n"
                            "        impairments on;\n"
                            "        hasty on;\n"
                            "}\n");
}

static void redis_conf_text(const struct lab *lab, const struct lab_region *region, size_t index,
                            struct buffer *text)
{
        buffer_format(text,
                      "bind %s\n"
                      "port %d\n"
                      "daemonize no\n"
                      "dir \"%s/%s/data/redis\"\n"
                      "logfile \"\"\n"
                      "appendonly yes\n"
                      "appendfsync everysec\n"
                      "save \"\"\n"
                      "loadmodule \"%s\" origin %zu\n",
                      region->address, LAB_PORT_REDIS, lab->dir, region->name, lab->plugin_redis,
                      index + 1);
}

static void zone_file_text(const struct lab *lab, const struct lab_region *region, size_t index,
                           struct buffer *text)
{
        (void)lab;
        (void)region;
        (void)index;
        buffer_format(text,
                      "$ORIGIN example.test.\n"
                      "$TTL 30\n"
                      "@    SOA ns1 hostmaster 1 3600 600 604800 5\n"
                      "@    NS  ns1\n"
                      "@    NS  ns2\n"
                      "@    NS  ns3\n"
                      "ns1  A   %s\n"
                      "ns2  A   %s\n"
                      "ns3  A   %s\n",
                      lab_regions[0].address, lab_regions[1].address, lab_regions[2].address);
}

/* Knot wants a socket for its control. The path of a socket has room for 107 bytes; where the lab
 * lies deeper it is in /tmp. */
static void knot_control(const struct lab *lab, const struct lab_region *region,
                         char path[LAB_PATH_MAX])
{
        struct sockaddr_un socket;
        int len = snprintf(path, LAB_PATH_MAX, "%s/%s/run/knot/knot.sock", lab->dir, region->name);
        if (len < (int)sizeof socket.sun_path)
                return;
        uint64_t hash = hash_fnv(HASH_FNV_START, bytes_of_str(lab->dir));
        snprintf(path, LAB_PATH_MAX, "/tmp/meridian-%016llx-%s.sock", (unsigned long long)hash,
                 region->name);
}

static void knot_conf_text(const struct lab *lab, const struct lab_region *region, size_t index,
                           struct buffer *text)
{
        char control[LAB_PATH_MAX];
        (void)index;
        knot_control(lab, region, control);
        buffer_format(text,
                      "control:\n"
                      "    listen: \"%s\"\n"
                      "\n"
                      "server:\n"
                      "    rundir: \"%s/%s/run/knot\"\n"
                      "    listen: %s@%d\n"
                      "    edns-client-subnet: on\n"
                      "    udp-workers: 1\n"
                      "    tcp-workers: 1\n"
                      "    background-workers: 1\n"
                      "\n"
                      "log:\n"
                      "  - target: stderr\n"
                      "    any: info\n"
                      "\n"
                      "database:\n"
                      "    storage: \"%s/%s/data/knot\"\n"
                      "\n"
                      "module:\n"
                      "  - id: mod-meridian\n"
                      "    file: \"%s\"\n"
                      "\n"
                      "mod-meridian:\n"
                      "  - id: default\n"
                      "    view: \"%s/%s/run/view\"\n"
                      "    geo: \"%s/geo.mmdb\"\n"
                      "\n"
                      "template:\n"
                      "  - id: default\n"
                      "    storage: \"%s/%s/data/knot\"\n"
                      "    zonefile-sync: -1\n"
                      "    journal-content: none\n"
                      "\n"
                      "zone:\n"
                      "  - domain: example.test\n"
                      "    file: example.test.zone\n"
                      "    module: mod-meridian/default\n",
                      control, lab->dir, region->name, region->address, LAB_PORT_DNS, lab->dir,
                      region->name, lab->plugin_knot, lab->dir, region->name, lab->dir, lab->dir,
                      region->name);
}

static void nginx_conf_text(const struct lab *lab, const struct lab_region *region, size_t index,
                            struct buffer *text)
{
        (void)index;
        buffer_format(
                text,
                "load_module \"%s\";\n"
                "%s"
                "daemon off;\n"
                "worker_processes 1;\n"
                "pid \"%s/%s/run/nginx/nginx.pid\";\n"
                "error_log stderr warn;\n"
                "events {\n"
                "        worker_connections 4096;\n"
                "}\n"
                "http {\n"
                "        access_log off;\n"
                "        client_body_temp_path \"%s/%s/run/nginx/body\";\n"
                "        proxy_temp_path \"%s/%s/run/nginx/proxy\";\n"
                "        fastcgi_temp_path \"%s/%s/run/nginx/fastcgi\";\n"
                "        uwsgi_temp_path \"%s/%s/run/nginx/uwsgi\";\n"
                "        scgi_temp_path \"%s/%s/run/nginx/scgi\";\n"
                "        upstream app {\n"
                "                meridian \"%s/%s/run/view\";\n"
                "                keepalive 32;\n"
                "        }\n"
                "        server {\n"
                "                listen %s:%d;\n"
                "                location / {\n"
                "                        proxy_pass http://app;\n"
                "                        proxy_http_version 1.1;\n"
                "                        proxy_set_header Connection \"\";\n"
                "                        proxy_set_header Host $host;\n"
                "                        proxy_connect_timeout 1s;\n"
                "                        proxy_next_upstream error timeout http_502 http_503;\n"
                "                        add_header Meridian-Region $meridian_region always;\n"
                "                        add_header Meridian-Route $meridian_route always;\n"
                "                }\n"
                "        }\n"
                "}\n",
                lab->plugin_nginx, geteuid() == 0 ? "user root;\n" : "", lab->dir, region->name,
                lab->dir, region->name, lab->dir, region->name, lab->dir, region->name, lab->dir,
                region->name, lab->dir, region->name, lab->dir, region->name, region->address,
                LAB_PORT_EDGE);
}

struct file_row {
        const char *name;
        void (*write)(const struct lab *lab, const struct lab_region *region, size_t index,
                      struct buffer *text);
};

static const struct file_row file_rows[] = {
        {"meridiand.conf", meridiand_conf_text}, {"redis.conf", redis_conf_text},
        {"knot.conf", knot_conf_text},           {"data/knot/example.test.zone", zone_file_text},
        {"nginx.conf", nginx_conf_text},
};

static bool region_files(const struct lab *lab, size_t index, struct buffer *text)
{
        for (size_t i = 0; i < COUNT_OF(file_rows); i++) {
                buffer_reset(text);
                file_rows[i].write(lab, &lab_regions[index], index, text);
                if (!text_save(lab, &lab_regions[index], file_rows[i].name, text))
                        return false;
        }
        for (unsigned node = 2; node <= lab_nodes_of(lab, &lab_regions[index]); node++)
                if (!lab_node_files(lab, index, node, text))
                        return false;
        return lab_postgres_files(lab, &lab_regions[index], 1, text);
}

bool lab_files_write(const struct lab *lab)
{
        struct heap heap;
        struct buffer text;
        if (!lab_dir_make(lab->dir) || !certificates(lab) || !geo_database(lab))
                return false;
        heap_init(&heap, 0);
        buffer_init(&text, &heap);
        topology_text(lab, &text);
        bool done = text_save(lab, NULL, "topology.conf", &text);
        for (size_t i = 0; i < LAB_REGIONS && done; i++)
                done = region_dirs(lab, &lab_regions[i]) && region_files(lab, i, &text);
        buffer_fini(&text);
        return done;
}
