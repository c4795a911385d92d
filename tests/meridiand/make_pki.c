/* make_pki [--long] DIR CLUSTER REGION/NODE...: an authority in DIR/ca and a certificate for each
 * node in DIR/REGION-NODE, for tests that run real daemons. They are good for a week, or from
 * decades ago to decades ahead: a node whose clock says otherwise does not start. */
#include "pki/pki.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DAY_S 86400

static struct pki_validity validity = {-3600, (int64_t)7 * DAY_S};

static bool issue(const char *root, const char *cluster, const char *name)
{
        struct pki_identity identity;
        struct pki_error error;
        char region[PKI_NAME_MAX + 1], ca[512], dir[512];
        unsigned node;
        if (sscanf(name, "%63[a-z0-9-]/%u", region, &node) != 2 || // NOLINT(cert-err34-c)
            pki_identity_set(&identity, cluster, region, node) != ERR_NONE)
                return false;
        snprintf(ca, sizeof ca, "%s/ca", root);
        snprintf(dir, sizeof dir, "%s/%s-%u", root, region, node);
        if (pki_node_issue(ca, dir, &identity, validity, &error) == ERR_NONE)
                return true;
        fprintf(stderr, "%s\n", error.text);
        return false;
}

int main(int argc, char **argv)
{
        struct pki_error error;
        char ca[512];
        if (argc > 1 && strcmp(argv[1], "--long") == 0) {
                validity = (struct pki_validity){(int64_t)-25 * 365 * DAY_S,
                                                 (int64_t)25 * 365 * DAY_S};
                argv++;
                argc--;
        }
        if (argc < 4)
                return 2;
        snprintf(ca, sizeof ca, "%s/ca", argv[1]);
        if (pki_ca_make(ca, argv[2], validity, &error) != ERR_NONE) {
                fprintf(stderr, "%s\n", error.text);
                return 1;
        }
        for (int i = 3; i < argc; i++) {
                if (!issue(argv[1], argv[2], argv[i]))
                        return 1;
        }
        return 0;
}
