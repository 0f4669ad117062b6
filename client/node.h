/* A node of the tree, as stat, list and wait return it. */
#ifndef CLIENT_NODE_H
#define CLIENT_NODE_H

#include "client/block.h"
#include "shmd.h"

/* Return: the bytes of strings that node_decode() takes from the block; 0 if there is no node. */
size_t node_string_size(const Shmd__Node *node);

/* Fills *ret, with its path in the block. Return: 0, -EPROTO. */
int node_decode(const Shmd__Node *node, Block *block, struct shmd_node *ret);

#endif
