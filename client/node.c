/* A node of the tree: see the header. */

#include "buildinfo.h"

#include "client/node.h"

#include "client/region.h"

size_t node_string_size(const Shmd__Node *node) {
        return node ? block_string_size(&node->path) : 0;
}

static int region_decode(const Shmd__Node *node, struct shmd_node *ret) {
        ret->region = node->region;
        ret->size = node->size;
        ret->charge = node->charge;
        ret->lifetime = node->lifetime;
        ret->freezable = node->freezable;
        ret->seals = node->seals;
        ret->created_ns = node->created_ns;
        ret->grants = node->grants;
        ret->names = node->names;
        ret->granted = node->granted;
        ret->allocated = node->allocated;
        ret->bell = node->bell;
        ret->ttl_ns = node->ttl_ns;
        return page_size_decode(node->huge_page_size, &ret->page_size);
}

int node_decode(const Shmd__Node *node, Block *block, struct shmd_node *ret) {
        *ret = (struct shmd_node){
                .path = block_string(block, &node->path),
                .kind = node->kind,
                .uid = node->uid,
                .gid = node->gid,
                .mode = node->mode,
                .acl = node->acl,
        };

        switch (node->kind) {
        case SHMD_NODE_DIRECTORY:
                ret->created_ns = node->created_ns;
                ret->entries = node->entries;
                return 0;
        case SHMD_NODE_REGION:
                return region_decode(node, ret);
        default:
                return -EPROTO;
        }
}
