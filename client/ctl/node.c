/* Nodes for people and programs: see the header for the model. */

#include "buildinfo.h"

#include "client/ctl/node.h"

#include <string.h>
#include <time.h>

/* <fcntl.h> of the C library has not all of them. */
static const struct {
        uint32_t seal;
        const char *name;
} seals[] = {
        { 0x01, "seal" },
        { 0x02, "shrink" },
        { 0x04, "grow" },
        { 0x08, "write" },
        { 0x10, "future-write" },
        { 0x20, "exec" },
};

const char *node_kind(const struct shmd_node *node) {
        return node->kind == SHMD_NODE_DIRECTORY ? "directory" : "region";
}

const char *node_lifetime(const struct shmd_node *node) {
        switch (node->lifetime) {
        case SHMD_LIFETIME_SESSION:
                return "session";
        case SHMD_LIFETIME_COUNTED:
                return "counted";
        default:
                return "named";
        }
}

const char *node_rights(uint32_t rights) {
        switch (rights) {
        case SHMD_RIGHTS_READ_ONLY:
                return "read-only";
        case SHMD_RIGHTS_READ_WRITE:
                return "read-write";
        default:
                return "none";
        }
}

const char *node_mode(char buffer[static NODE_TEXT_MAX], const struct shmd_node *node) {
        static const char letters[] = "rwxrwxrwx";
        bool sticky = node->mode & 01000;

        buffer[0] = node->kind == SHMD_NODE_DIRECTORY ? 'd' : '-';
        for (int i = 0; i < 9; ++i)
                buffer[1 + i] = node->mode & (0400U >> i) ? letters[i] : '-';
        if (sticky)
                buffer[9] = node->mode & 01 ? 't' : 'T';
        buffer[10] = node->acl ? '+' : 0;
        buffer[11] = 0;
        return buffer;
}

static bool local_time(const struct shmd_node *node, struct tm *ret) {
        time_t seconds = (time_t)(node->created_ns / 1000000000);

        return node->created_ns && localtime_r(&seconds, ret);
}

const char *node_date(char buffer[static NODE_TEXT_MAX], const struct shmd_node *node) {
        struct tm tm;

        if (!local_time(node, &tm) || !strftime(buffer, NODE_TEXT_MAX, "%Y-%m-%d %H:%M", &tm))
                strcpy(buffer, "-");
        return buffer;
}

static json_t *date_json(const struct shmd_node *node) {
        char text[NODE_TEXT_MAX];
        struct tm tm;

        if (!local_time(node, &tm) || !strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S%z", &tm))
                return json_null();
        return output_string(text);
}

const char *node_seals(char buffer[static NODE_TEXT_MAX], uint32_t set) {
        buffer[0] = 0;
        for (size_t i = 0; i < sizeof(seals) / sizeof(*seals); ++i)
                if (set & seals[i].seal) {
                        if (*buffer)
                                strcat(buffer, " ");
                        strcat(buffer, seals[i].name);
                }
        return *buffer ? buffer : strcpy(buffer, "none");
}

static json_t *seals_json(uint32_t set) {
        json_t *array = json_array();

        for (size_t i = 0; i < sizeof(seals) / sizeof(*seals); ++i)
                if (set & seals[i].seal)
                        output_append(array, output_string(seals[i].name));
        return array;
}

static void set_region(json_t *o, const struct shmd_node *node) {
        output_set(o, "region", output_number(node->region));
        output_set(o, "size", output_number(node->size));
        output_set(o, "charge", output_number(node->charge));
        output_set(o, "page_size", output_number(node->page_size));
        output_set(o, "lifetime", output_string(node_lifetime(node)));
        output_set(o, "freezable", json_boolean(node->freezable));
        output_set(o, "seals", seals_json(node->seals));
        output_set(o, "created", date_json(node));
        output_set(o, "created_ns", output_number(node->created_ns));
        output_set(o, "ttl_ns", node->ttl_ns ? output_number(node->ttl_ns) : json_null());
        output_set(o, "names", output_number(node->names));
        output_set(o, "grants", output_number(node->grants));
        output_set(o, "granted", output_number(node->granted));
        output_set(o, "doorbell", node->bell ? output_number(node->bell) : json_null());
}

json_t *node_json(const struct shmd_node *node) {
        char text[NODE_TEXT_MAX], name[OUTPUT_USER_MAX];
        json_t *o = json_object();

        output_set(o, "path", *node->path ? output_string(node->path) : json_null());
        output_set(o, "kind", output_string(node_kind(node)));
        output_set(o, "uid", json_integer(node->uid));
        output_set(o, "user", output_string(output_user(name, node->uid)));
        output_set(o, "gid", json_integer(node->gid));
        output_set(o, "group", output_string(output_group(name, node->gid)));
        (void)snprintf(text, sizeof(text), "%04o", (unsigned int)node->mode);
        output_set(o, "mode", output_string(text));
        output_set(o, "acl", json_boolean(node->acl));
        if (node->kind == SHMD_NODE_DIRECTORY)
                output_set(o, "entries", output_number(node->entries));
        else
                set_region(o, node);
        return o;
}
