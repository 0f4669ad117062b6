/* ticket, redeem, revoke and tickets: see shmd.h. */

#include "buildinfo.h"

#include "client/block.h"
#include "client/client.h"
#include "client/op-grant.h"
#include "client/options.h"

/* Names a region for those requests that take either. Return: 0, or what request_path() returns. */
static int encode_region(shmd *client, const char *path, uint64_t region, ProtobufCBinaryData *ret_path,
                         uint64_t *ret_region) {
        if (path)
                return request_path(client, path, 0, ret_path);
        *ret_region = region;
        return 0;
}

/* A ticket is any text; the broker alone says whether it is one. */
static ProtobufCBinaryData text_bytes(const char *text) {
        return (ProtobufCBinaryData){ .data = (uint8_t *)text, .len = strlen(text) };
}

/* -- ticket -------------------------------------------------------------------------- */

static int ticket_decode(shmd_call *call, const ProtobufCMessage *reply, void *out) {
        const Shmd__TicketReply *ticket = (const Shmd__TicketReply *)reply;
        struct shmd_ticket_result **ret = out;
        struct shmd_ticket_result *result;
        Block block;

        if (ticket->ticket.len == 0)
                return -EPROTO;
        result = block_new(&block, sizeof(*result), block_string_size(&ticket->ticket));
        if (!result)
                return -ENOMEM;
        result->ticket = block_string(&block, &ticket->ticket);
        result->id = ticket->id;
        result->ttl_ns = ticket->ttl_ns;
        /* The caller has the one copy: neither what was unpacked nor the packet, of which it is a part,
         * keeps another. */
        explicit_bzero(ticket->ticket.data, ticket->ticket.len);
        explicit_bzero(call->client->buffer, WIRE_REPLY_MAX);

        *ret = result;
        return 0;
}

static const Op op_ticket = { .kind = MESSAGE_TICKET, .changes = 1, .decode = ticket_decode };

int shmd_ticket_start(shmd *client, const char *path, uint64_t region, const struct shmd_ticket_options *options,
                      uint64_t timeout_ns, shmd_callback callback, void *userdata, shmd_call **ret) {
        struct shmd_ticket_options o = SHMD_TICKET_OPTIONS_INIT;
        Shmd__Ticket ticket = SHMD__TICKET__INIT;
        int r;

        r = encode_region(client, path, region, &ticket.path, &ticket.region);
        if (r)
                return r;
        if (options && !options_read(&o, sizeof(o), sizeof(o), options))
                return refusal_local(client, -EINVAL, SHMD__REASON__REASON_MALFORMED, 0, "",
                                     "these are no options of a ticket");
        ticket.rights = o.rights;
        ticket.uses = o.uses;
        ticket.ttl_ns = o.ttl_ns;
        if (o.uid != (uid_t)-1) {
                ticket.flags = SHMD__TICKET_FLAGS__TICKET_ONE_USER;
                ticket.uid = o.uid;
        }
        return call_start(client, &op_ticket, &ticket.base, timeout_ns, callback, userdata, ret);
}

int shmd_ticket_finish(shmd_call *call, struct shmd_ticket_result **ret) {
        *ret = NULL;
        return call_finish(call, &op_ticket, ret);
}

int shmd_ticket(shmd *client, const char *path, uint64_t region, const struct shmd_ticket_options *options,
                struct shmd_ticket_result **ret, uint64_t timeout_ns) {
        CallWait wait = { .out = ret };

        *ret = NULL;
        return call_wait(&wait, client,
                         shmd_ticket_start(client, path, region, options, timeout_ns, call_waited, &wait, &wait.call));
}

struct shmd_ticket_result *shmd_ticket_free(struct shmd_ticket_result *result) {
        if (result)
                explicit_bzero((char *)result->ticket, strlen(result->ticket));
        free(result);
        return NULL;
}

/* -- redeem -------------------------------------------------------------------------- */

static size_t redeem_n_fds(const ProtobufCMessage *reply) {
        size_t n = granted_n_fds(reply);

        return n == 1 ? n : SIZE_MAX;
}

static const Op op_redeem = { .kind = MESSAGE_REDEEM, .changes = 1, .secret = true, .n_fds = redeem_n_fds,
                              .decode = single_decode };

int shmd_redeem_start(shmd *client, const char *ticket,
                      uint64_t timeout_ns, shmd_callback callback, void *userdata, shmd_call **ret) {
        Shmd__Redeem redeem = SHMD__REDEEM__INIT;

        redeem.ticket = text_bytes(ticket);
        return call_start(client, &op_redeem, &redeem.base, timeout_ns, callback, userdata, ret);
}

int shmd_redeem_finish(shmd_call *call, shmd_region **ret) {
        *ret = NULL;
        return call_finish(call, &op_redeem, ret);
}

int shmd_redeem(shmd *client, const char *ticket, shmd_region **ret, uint64_t timeout_ns) {
        CallWait wait = { .out = ret };

        *ret = NULL;
        return call_wait(&wait, client,
                         shmd_redeem_start(client, ticket, timeout_ns, call_waited, &wait, &wait.call));
}

/* -- revoke -------------------------------------------------------------------------- */

static int revoke_decode(shmd_call *call, const ProtobufCMessage *reply, void *out) {
        uint32_t *ret = out;

        if (ret)
                *ret = ((const Shmd__RevokeReply *)reply)->revoked;
        return 0;
}

static const Op op_revoke = { .kind = MESSAGE_REVOKE, .changes = 1, .secret = true, .decode = revoke_decode };

int shmd_revoke_start(shmd *client, uint32_t what, const char *text, uint64_t number,
                      uint64_t timeout_ns, shmd_callback callback, void *userdata, shmd_call **ret) {
        Shmd__Revoke revoke = SHMD__REVOKE__INIT;
        int r = 0;

        switch (what) {
        case SHMD_REVOKE_NUMBER:
                revoke.id = number;
                break;
        case SHMD_REVOKE_TICKET:
                revoke.ticket = text_bytes(text);
                break;
        case SHMD_REVOKE_ALL:
                r = encode_region(client, text, number, &revoke.path, &revoke.region);
                break;
        default:
                return refusal_local(client, -EINVAL, SHMD__REASON__REASON_MALFORMED, 0, "",
                                     "there is nothing of that kind to revoke");
        }
        return r ? r : call_start(client, &op_revoke, &revoke.base, timeout_ns, callback, userdata, ret);
}

int shmd_revoke_finish(shmd_call *call, uint32_t *ret_revoked) {
        if (ret_revoked)
                *ret_revoked = 0;
        return call_finish(call, &op_revoke, ret_revoked);
}

int shmd_revoke(shmd *client, uint32_t what, const char *text, uint64_t number, uint32_t *ret_revoked,
                uint64_t timeout_ns) {
        CallWait wait = { .out = ret_revoked };

        if (ret_revoked)
                *ret_revoked = 0;
        return call_wait(&wait, client,
                         shmd_revoke_start(client, what, text, number, timeout_ns, call_waited, &wait, &wait.call));
}

/* -- tickets ------------------------------------------------------------------------- */

static void info_decode(const Shmd__TicketInfo *info, struct shmd_ticket_info *ret) {
        *ret = (struct shmd_ticket_info){
                .id = info->id,
                .rights = info->rights,
                .left = info->left,
                .ttl_ns = info->ttl_ns,
                .uid = info->one_user ? info->uid : (uid_t)-1,
        };
}

static int tickets_decode(shmd_call *call, const ProtobufCMessage *reply, void *out) {
        const Shmd__TicketsReply *list = (const Shmd__TicketsReply *)reply;
        struct shmd_tickets_result **ret = out;
        struct shmd_tickets_result *result;
        Block block;

        result = block_new(&block, sizeof(*result) + list->n_tickets * sizeof(*result->tickets), 0);
        if (!result)
                return -ENOMEM;
        result->n = list->n_tickets;
        result->tickets = (struct shmd_ticket_info *)(result + 1);
        for (size_t i = 0; i < list->n_tickets; ++i)
                info_decode(list->tickets[i], &result->tickets[i]);
        result->cursor = list->cursor;

        *ret = result;
        return 0;
}

static const Op op_tickets = { .kind = MESSAGE_TICKETS, .decode = tickets_decode };

int shmd_tickets_start(shmd *client, const char *path, uint64_t region, uint64_t cursor,
                       uint64_t timeout_ns, shmd_callback callback, void *userdata, shmd_call **ret) {
        Shmd__Tickets tickets = SHMD__TICKETS__INIT;
        int r;

        tickets.cursor = cursor;
        r = encode_region(client, path, region, &tickets.path, &tickets.region);
        return r ? r : call_start(client, &op_tickets, &tickets.base, timeout_ns, callback, userdata, ret);
}

int shmd_tickets_finish(shmd_call *call, struct shmd_tickets_result **ret) {
        *ret = NULL;
        return call_finish(call, &op_tickets, ret);
}

int shmd_tickets(shmd *client, const char *path, uint64_t region, uint64_t cursor,
                 struct shmd_tickets_result **ret, uint64_t timeout_ns) {
        CallWait wait = { .out = ret };

        *ret = NULL;
        return call_wait(&wait, client,
                         shmd_tickets_start(client, path, region, cursor, timeout_ns, call_waited, &wait, &wait.call));
}

struct shmd_tickets_result *shmd_tickets_free(struct shmd_tickets_result *result) {
        free(result);
        return NULL;
}
