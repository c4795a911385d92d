/* lab_nodes.c - regions of several nodes: `lab up --nodes 3`. The first node of a region is where
 * its servers are (127.10.0.1); the others (127.10.0.2, .3) are daemons, which watch the same
 * servers and take over when the first one is gone. With `--servers 2` the second one has a
 * PostgreSQL server of its own. A witness region has one node and no servers. What there is is
 * noted in `.lab/nodes`: "3\n", "3 2\n", "1 1 w\n" (with a witness). */
#include "lab/lab_priv.h"

#include "pki/pki.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

unsigned lab_node_id(size_t region, unsigned node)
{
        unsigned first = (unsigned)region + 1;
        return node == 1 ? first : 10 * first + node;
}

void lab_node_address(const struct lab_region *region, unsigned node, char text[LAB_ADDRESS_SIZE])
{
        size_t len = strlen(region->address);
        (void)snprintf(text, LAB_ADDRESS_SIZE, "%.*s%u", (int)len - 1, region->address, node);
}

enum lab_part lab_node_part(unsigned node)
{
        return node == 1 ? LAB_MERIDIAND : (enum lab_part)(LAB_NODE_2 + node - 2);
}

unsigned lab_part_count(const struct lab *lab)
{
        unsigned count = 0;
        for (size_t i = 0; i < LAB_REGIONS; i++)
                for (enum lab_part part = 0; part < LAB_PARTS; part++)
                        count += lab_part_used(lab, &lab_regions[i], part);
        return count;
}

static bool nodes_path(const struct lab *lab, char path[LAB_PATH_MAX])
{
        return lab_path(path, "%s/nodes", lab->dir);
}

bool lab_nodes_load(struct lab *lab)
{
        char path[LAB_PATH_MAX];
        lab->nodes = lab->servers = 1;
        lab->witness = false;
        if (!nodes_path(lab, path))
                return false;
        FILE *file = fopen(path, "re");
        if (file == NULL)
                return errno == ENOENT || lab_error("%s: %s", path, strerror(errno));
        char witness = 0;
        int count = fscanf(file, "%1u %1u %c", &lab->nodes, &lab->servers, &witness);
        lab->witness = witness == 'w';
        fclose(file);
        if (count < 1 || lab->nodes < 1 || lab->nodes > LAB_NODES_MAX || lab->servers < 1 ||
            lab->servers > lab->nodes)
                return lab_error("%s is damaged: `meridian lab down --wipe` ends the lab", path);
        return true;
}

bool lab_nodes_use(struct lab *lab, unsigned nodes, unsigned servers, bool witness)
{
        char path[LAB_PATH_MAX];
        char started[LAB_PATH_MAX];
        char text[8];
        witness = witness || lab->witness;
        if (!nodes_path(lab, path) || !lab_path(started, "%s/started", lab->dir))
                return false;
        if (servers > nodes)
                return lab_error("%u servers need as many nodes: write --nodes %u --servers %u",
                                 servers, servers, servers);
        if (nodes == lab->nodes && servers == lab->servers && witness == lab->witness)
                return true;
        if (access(started, F_OK) == 0)
                return lab_error("this lab has %u node%s in each region, %u with PostgreSQL%s: end "
                                 "it with `meridian lab down --wipe`, then start it otherwise",
                                 lab->nodes, lab->nodes == 1 ? "" : "s", lab->servers,
                                 lab->witness ? ", and a witness" : "");
        lab->nodes = nodes;
        lab->servers = servers;
        lab->witness = witness;
        int len = snprintf(text, sizeof text, "%u %u%s\n", nodes, servers, witness ? " w" : "");
        return lab_dir_make(lab->dir) && lab_file_write(path, bytes_of(text, (size_t)len));
}

bool lab_node_certificate(const struct lab *lab, size_t region, unsigned node)
{
        static const struct pki_validity validity = {-3600, (int64_t)PKI_DAYS_NODE * 86400};
        struct pki_identity identity;
        struct pki_error error;
        char ca[LAB_PATH_MAX];
        char dir[LAB_PATH_MAX];
        char file[LAB_PATH_MAX];
        if (!lab_path(ca, "%s/pki", lab->dir) ||
            !lab_path(dir, "%s/%s-%u", ca, lab_regions[region].name, node) ||
            !lab_path(file, "%s/node.crt", dir))
                return false;
        if (access(file, R_OK) == 0)
                return true;
        enum err err = pki_identity_set(&identity, LAB_CLUSTER, lab_regions[region].name,
                                        lab_node_id(region, node));
        if (err == ERR_NONE)
                err = pki_node_issue(ca, dir, &identity, validity, &error);
        return err == ERR_NONE || lab_error("%s", error.text);
}

int lab_certificate(const struct lab *lab, const char *region, const char *number)
{
        static const struct pki_validity validity = {-3600, (int64_t)PKI_DAYS_NODE * 86400};
        struct pki_identity identity;
        struct pki_error error;
        char ca[LAB_PATH_MAX];
        char dir[LAB_PATH_MAX];
        char *end = NULL;
        unsigned long id = strtoul(number, &end, 10);
        if (id == 0 || id > UINT32_MAX || *end != '\0' ||
            pki_identity_set(&identity, LAB_CLUSTER, region, (uint32_t)id) != ERR_NONE)
                return lab_error("%s, node %s: a region's name and a node's id are wanted", region,
                                 number)
                               ? 0
                               : 1;
        if (!lab_path(ca, "%s/pki", lab->dir) || !lab_path(dir, "%s/%s-node-%lu", ca, region, id))
                return 1;
        if (pki_node_issue(ca, dir, &identity, validity, &error) != ERR_NONE)
                return lab_error("%s", error.text) ? 0 : 1;
        printf("%s\n", dir);
        return 0;
}

void lab_node_topology(size_t region, unsigned node, struct buffer *text)
{
        char address[LAB_ADDRESS_SIZE];
        lab_node_address(&lab_regions[region], node, address);
        buffer_format(text,
                      "        node %s-%u {\n"
                      "                id = %u\n"
                      "                link = \"%s:%d\"\n"
                      "                admin = \"%s:%d\"\n"
                      "                locks = \"%s:%d\"\n"
                      "        }\n",
                      lab_regions[region].name, node, lab_node_id(region, node), address,
                      LAB_PORT_LINK, address, LAB_PORT_ADMIN, address, LAB_PORT_LOCKS);
}

static void node_conf(const struct lab *lab, size_t index, unsigned node, struct buffer *text)
{
        const struct lab_region *region = &lab_regions[index];
        char own[LAB_ADDRESS_SIZE];
        lab_node_address(region, node, own);
        buffer_format(text,
                      "cluster    %s;\n"
                      "region     %s;\n"
                      "node       %u;\n"
                      "topology   \"%s/topology.conf\";\n"
                      "data_dir   \"%s/%s/data/meridiand-%u\";\n"
                      "run_dir    \"%s/%s/run/node-%u\";\n",
                      LAB_CLUSTER, region->name, lab_node_id(index, node), lab->dir, lab->dir,
                      region->name, node, lab->dir, region->name, node);
        buffer_format(text,
                      "pki {\n"
                      "        ca    \"%s/pki/%s-%u/ca.crt\";\n"
                      "        cert  \"%s/pki/%s-%u/node.crt\";\n"
                      "        key   \"%s/pki/%s-%u/node.key\";\n"
                      "}\n"
                      "listen {\n"
                      "        link   \"%s:%d\";\n"
                      "        admin  \"%s:%d\";\n"
                      "        locks  \"%s:%d\";\n"
                      "}\n",
                      lab->dir, region->name, node, lab->dir, region->name, node, lab->dir,
                      region->name, node, own, LAB_PORT_LINK, own, LAB_PORT_ADMIN, own,
                      LAB_PORT_LOCKS);
        buffer_format(text,
                      "redis      \"%s:%d\";\n"
                      "dns        \"%s:%d\";\n"
                      "edge       \"%s:%d\";\n"
                      "geo        \"%s/geo.mmdb\";\n",
                      region->address, LAB_PORT_REDIS, region->address, LAB_PORT_DNS,
                      region->address, LAB_PORT_EDGE, lab->dir);
        lab_postgres_conf(lab, region, node, text);
        buffer_format(text, "lab {\n"
                            "        impairments on;\n"
                            "        hasty on;\n"
                            "}\n");
}

bool lab_node_files(const struct lab *lab, size_t region, unsigned node, struct buffer *text)
{
        char path[LAB_PATH_MAX];
        if (!lab_path(path, "%s/%s/meridiand-%u.conf", lab->dir, lab_regions[region].name, node))
                return false;
        buffer_reset(text);
        node_conf(lab, region, node, text);
        if (text->err != ERR_NONE)
                return lab_error("out of memory");
        return lab_node_certificate(lab, region, node) && lab_file_write(path, buffer_view(text)) &&
               lab_postgres_files(lab, &lab_regions[region], node, text);
}

bool lab_node_find(const struct lab *lab, const char *text, const struct lab_region **ret_region,
                   unsigned *ret_node)
{
        char name[64];
        const char *slash = strchr(text, '/');
        size_t len = slash == NULL ? strlen(text) : (size_t)(slash - text);
        (void)snprintf(name, sizeof name, "%.*s", (int)(len < 63 ? len : 63), text);
        *ret_region = lab_region_find(name);
        *ret_node = 0;
        if (*ret_region == NULL || slash == NULL)
                return *ret_region != NULL;
        unsigned nodes = lab_nodes_of(lab, *ret_region);
        if (slash[1] < '1' || slash[1] > '9' || slash[2] != '\0' ||
            (unsigned)(slash[1] - '0') > nodes)
                return lab_error("%s: that region has %u node%s: write %s/1%s", text, nodes,
                                 nodes == 1 ? "" : "s", name, nodes > 1 ? ", ..." : "");
        *ret_node = (unsigned)(slash[1] - '0');
        return true;
}
