/* acl: shows ACLs as getfacl(1) does, and changes them as setfacl(1) does.
 *
 * The broker sets lists, whole. So a change gets the lists, edits them here, one edit after the
 * other, and sets them; who changes them in the meantime loses his change.
 *
 * An edit leaves a list complete: a default ACL that begins takes what it lacks of owner, group
 * and others from the ACL, and a list with entries for users or groups gets a mask. Unless -n was
 * given, or a mask, the mask is then what all it applies to have together.
 */

#include "buildinfo.h"

#include <string.h>

#include "base/acl.h"
#include "client/ctl/ctl.h"
#include "client/ctl/fail.h"
#include "client/ctl/output.h"

DEFINE_CLEANUP(struct shmd_acl_result, shmd_acl_free);

typedef enum EditKind {
        EDIT_MODIFY,
        EDIT_REMOVE,
        EDIT_SET,
        EDIT_REMOVE_ALL,
        EDIT_REMOVE_DEFAULT,
} EditKind;

typedef struct Edit {
        EditKind kind;
        struct shmd_acl_lists lists;
} Edit;

#define EDITS_MAX 16

typedef struct AclArgs {
        Operands operands;
        bool defaults;          /* entries without default: are of the default ACL all the same */
        bool keep_mask;
        bool numeric;
        size_t n_edits;
        Edit edits[EDITS_MAX];
} AclArgs;

/* Both lists of a thing, while they are edited. */
typedef struct Lists {
        AclList access;
        AclList defaults;
        bool set_access;
        bool set_defaults;
} Lists;

/* -- options ---------------------------------------------------------------------------- */

enum {
        OPTION_SET = 512,
        OPTION_NUMERIC,
};

static const struct argp_option acl_options[] = {
        { "modify",         'm', "ENTRIES", 0, "Add entries, or change those that are there" },
        { "remove",         'x', "ENTRIES", 0, "Remove entries for users and groups, or the mask; without permissions" },
        { "set",     OPTION_SET, "ENTRIES", 0, "Replace all entries" },
        { "remove-all",     'b', NULL,      0, "Remove all but the entries of owner, group and others" },
        { "remove-default", 'k', NULL,      0, "Remove the default ACL" },
        { "default",        'd', NULL,      0, "The entries are of the default ACL, as if default: stood before each" },
        { "no-mask",        'n', NULL,      0, "Leave the mask as it is" },
        { "numeric", OPTION_NUMERIC, NULL,  0, "Show numbers of users and groups instead of names" },
        { NULL },
};

static Edit *add_edit(struct argp_state *state, AclArgs *args, EditKind kind) {
        if (args->n_edits == EDITS_MAX)
                argp_error(state, "at most %d changes at once", EDITS_MAX);
        args->edits[args->n_edits].kind = kind;
        return &args->edits[args->n_edits++];
}

static void add_entries(struct argp_state *state, AclArgs *args, EditKind kind, const char *text) {
        Edit *edit = add_edit(state, args, kind);
        const char *sentence;
        size_t at;

        if (shmd_acl_from_text(text, kind == EDIT_REMOVE ? SHMD_ACL_TEXT_BARE : 0, &edit->lists, &at, &sentence) < 0) {
                CLEANUP(freep) char *escaped = output_escape(text + at, stderr);

                argp_error(state, "'%s': %s", escaped, sentence);
        }
        if (edit->lists.n_access + edit->lists.n_defaults == 0)
                argp_error(state, "entries are missing");
}

static error_t parse_acl(int key, char *arg, struct argp_state *state) {
        AclArgs *args = state->input;

        switch (key) {
        case 'm':
                add_entries(state, args, EDIT_MODIFY, arg);
                return 0;
        case 'x':
                add_entries(state, args, EDIT_REMOVE, arg);
                return 0;
        case OPTION_SET:
                add_entries(state, args, EDIT_SET, arg);
                return 0;
        case 'b':
                (void)add_edit(state, args, EDIT_REMOVE_ALL);
                return 0;
        case 'k':
                (void)add_edit(state, args, EDIT_REMOVE_DEFAULT);
                return 0;
        case 'd':
                args->defaults = true;
                return 0;
        case 'n':
                args->keep_mask = true;
                return 0;
        case OPTION_NUMERIC:
                args->numeric = true;
                return 0;
        case ARGP_KEY_ARGS:
                ctl_operands(state, &args->operands, 1, INT32_MAX, 0);
                return 0;
        case ARGP_KEY_NO_ARGS:
                argp_error(state, "a name is missing");
                return 0;
        default:
                return ARGP_ERR_UNKNOWN;
        }
}

const struct argp command_acl_argp = {
        .options = acl_options,
        .parser = parse_acl,
        .args_doc = "NAME...",
        .doc = "Shows or changes the ACLs of regions and directories. Entries are as setfacl(1) has them, between commas: "
               "u:USER:rw, g:GROUP:r, u::rwx (the owner), g::r (the owning group), m::rw (the mask), o::- (others); "
               "with d: in front they are of the default ACL, with which things in a directory are made.\v"
               "Examples:\n"
               "  shmdctl acl /camera\n"
               "  shmdctl acl -m u:alice:rw,g:video:r /camera/frame0\n"
               "  shmdctl acl -d -m u:alice:rw /camera\n"
               "  shmdctl acl -x u:alice /camera/frame0",
};

/* -- editing ------------------------------------------------------------------------------ */

static AclEntry entry_of(const struct shmd_acl_entry *entry) {
        return acl_entry(entry->tag, entry->id, entry->perms);
}

static void take_list(AclList *list, const struct shmd_acl_entry *entries, size_t n) {
        list->n = 0;
        for (size_t i = 0; i < n && i < ACL_ENTRIES_MAX; ++i)
                list->entries[list->n++] = entry_of(&entries[i]);
}

/* Return: NULL, or what is wrong. */
static const char *modify(AclList *list, const struct shmd_acl_entry *entries, size_t n) {
        for (size_t i = 0; i < n; ++i)
                if (!acl_list_put(list, entry_of(&entries[i])))
                        return acl_error_sentence(ACL_TOO_MANY);
        return NULL;
}

static const char *remove_entries(AclList *list, const struct shmd_acl_entry *entries, size_t n) {
        for (size_t i = 0; i < n; ++i) {
                AclEntry *at = acl_list_find(list, entries[i].tag, entries[i].id);

                if (!acl_tag_is_named(entries[i].tag) && entries[i].tag != ACL_MASK)
                        return "the entries of owner, group and others stay: change them";
                if (!at)
                        continue;
                --list->n;
                memmove(at, at + 1, (size_t)(list->entries + list->n - at) * sizeof(*at));
        }
        return NULL;
}

static void strip(AclList *list) {
        size_t n = 0;

        for (size_t i = 0; i < list->n; ++i)
                if (!acl_tag_is_named(list->entries[i].tag) && list->entries[i].tag != ACL_MASK)
                        list->entries[n++] = list->entries[i];
        list->n = n;
}

static bool has_mask(const struct shmd_acl_entry *entries, size_t n) {
        for (size_t i = 0; i < n; ++i)
                if (entries[i].tag == SHMD_ACL_MASK)
                        return true;
        return false;
}

/* A default ACL takes what it lacks from the ACL. */
static void complete(AclList *defaults, const AclList *access) {
        for (size_t i = 0; i < access->n; ++i) {
                const AclEntry *entry = &access->entries[i];

                if (!acl_tag_is_named(entry->tag) && entry->tag != ACL_MASK &&
                    !acl_list_find(defaults, entry->tag, ACL_NO_ID))
                        (void)acl_list_put(defaults, *entry);
        }
}

/* keep: the mask stays as it is, if there is one. */
static void adjust_mask(AclList *list, bool keep) {
        const AclEntry *group = acl_list_find(list, ACL_GROUP_OBJ, ACL_NO_ID);
        bool present = acl_list_find(list, ACL_MASK, ACL_NO_ID);
        AclEntry mask = { .tag = ACL_MASK, .perms = keep && group ? group->perms : acl_list_group_perms(list) };

        if (acl_list_is_extended(list) && (!present || !keep))
                (void)acl_list_put(list, mask);
}

static const char *edit_list(AclList *list, EditKind kind, const struct shmd_acl_entry *entries, size_t n) {
        if (kind == EDIT_REMOVE)
                return remove_entries(list, entries, n);
        if (kind == EDIT_SET)
                list->n = 0;
        return modify(list, entries, n);
}

/* One half of an edit, on the list it is about. */
static const char *edit_half(const AclArgs *args, EditKind kind, const struct shmd_acl_entry *entries, size_t n,
                             bool defaults, Lists *lists) {
        AclList *list = defaults ? &lists->defaults : &lists->access;
        const char *wrong;

        wrong = edit_list(list, kind, entries, n);
        if (wrong)
                return wrong;
        if (defaults && list->n)
                complete(list, &lists->access);
        adjust_mask(list, args->keep_mask || (kind != EDIT_REMOVE && has_mask(entries, n)));
        *(defaults ? &lists->set_defaults : &lists->set_access) = true;
        return NULL;
}

static const char *edit_entries(const AclArgs *args, const Edit *edit, Lists *lists) {
        const struct shmd_acl_lists *with = &edit->lists;
        const char *wrong = NULL;

        if (with->n_access)
                wrong = edit_half(args, edit->kind, with->access, with->n_access, args->defaults, lists);
        if (!wrong && with->n_defaults)
                wrong = edit_half(args, edit->kind, with->defaults, with->n_defaults, true, lists);
        return wrong;
}

static const char *edit_lists(const AclArgs *args, const Edit *edit, Lists *lists) {
        switch (edit->kind) {
        case EDIT_REMOVE_ALL:
                strip(&lists->access);
                lists->set_access = true;
                lists->set_defaults |= lists->defaults.n > 0;
                lists->defaults.n = 0;
                return NULL;
        case EDIT_REMOVE_DEFAULT:
                lists->set_defaults |= lists->defaults.n > 0;
                lists->defaults.n = 0;
                return NULL;
        case EDIT_MODIFY:
        case EDIT_REMOVE:
        case EDIT_SET:
        default:
                return edit_entries(args, edit, lists);
        }
}

static size_t give_list(const AclList *list, struct shmd_acl_entry ret[SHMD_ACL_MAX]) {
        for (size_t i = 0; i < list->n; ++i)
                ret[i] = (struct shmd_acl_entry){ list->entries[i].tag, list->entries[i].id, list->entries[i].perms };
        return list->n;
}

static int set_lists(Ctl *ctl, const char *path, const Lists *lists) {
        struct shmd_acl_entry access[SHMD_ACL_MAX], defaults[SHMD_ACL_MAX];
        uint32_t flags = (lists->set_access ? SHMD_ACL_ACCESS : 0) | (lists->set_defaults ? SHMD_ACL_DEFAULT : 0);
        size_t n_access = lists->set_access ? give_list(&lists->access, access) : 0;
        size_t n_defaults = lists->set_defaults ? give_list(&lists->defaults, defaults) : 0;

        if (!flags)
                return 0;
        return shmd_acl_set(ctl->client, path, flags, access, n_access, defaults, n_defaults, SHMD_TIMEOUT_DEFAULT);
}

static int change(Ctl *ctl, const AclArgs *args, const char *path) {
        CLEANUP(shmd_acl_freep) struct shmd_acl_result *result = NULL;
        const char *wrong = NULL;
        Lists lists = { .set_access = false };
        int r;

        r = shmd_acl_get(ctl->client, path, &result, SHMD_TIMEOUT_DEFAULT);
        if (r < 0)
                return fail_call(ctl, path, r);
        take_list(&lists.access, result->access, result->n_access);
        take_list(&lists.defaults, result->defaults, result->n_defaults);
        for (size_t i = 0; !wrong && i < args->n_edits; ++i)
                wrong = edit_lists(args, &args->edits[i], &lists);
        if (wrong)
                return fail_usage(ctl, wrong);
        r = set_lists(ctl, path, &lists);
        return r < 0 ? fail_call(ctl, path, r) : CTL_DONE;
}

/* -- showing ------------------------------------------------------------------------------ */

#define ENTRY_TEXT_MAX 320

/* What the mask of a list leaves of an entry; without one, all of it. */
static uint32_t effective(const struct shmd_acl_entry *entries, size_t n, const struct shmd_acl_entry *entry) {
        bool masked = acl_tag_is_named(entry->tag) || entry->tag == SHMD_ACL_GROUP_OBJ;

        for (size_t i = 0; masked && i < n; ++i)
                if (entries[i].tag == SHMD_ACL_MASK)
                        return entry->perms & entries[i].perms;
        return entry->perms;
}

static const char *perms_text(char buffer[static 4], uint32_t perms) {
        (void)snprintf(buffer, 4, "%c%c%c", perms & 4 ? 'r' : '-', perms & 2 ? 'w' : '-', perms & 1 ? 'x' : '-');
        return buffer;
}

static void print_list(const AclArgs *args, const struct shmd_acl_entry *entries, size_t n, uint32_t flags) {
        for (size_t i = 0; i < n; ++i) {
                uint32_t left = effective(entries, n, &entries[i]);
                char text[ENTRY_TEXT_MAX], perms[4];

                if (shmd_acl_to_text(&entries[i], flags | (args->numeric ? SHMD_ACL_TEXT_NUMERIC : 0),
                                     text, sizeof(text)) < 0)
                        continue;
                output_text(text, stdout);
                if (left != entries[i].perms)
                        printf("\t#effective:%s", perms_text(perms, left));
                fputc('\n', stdout);
        }
}

static void print_acl(const AclArgs *args, const char *path, const struct shmd_acl_result *acl) {
        char name[OUTPUT_USER_MAX];

        fputs("# name: ", stdout);
        output_text(path, stdout);
        if (args->numeric)
                printf("\n# owner: %u\n# group: %u\n", acl->uid, acl->gid);
        else {
                printf("\n# owner: %s\n", output_user(name, acl->uid));
                printf("# group: %s\n", output_group(name, acl->gid));
        }
        if (acl->mode & 01000)
                printf("# flags: --t\n");
        print_list(args, acl->access, acl->n_access, 0);
        print_list(args, acl->defaults, acl->n_defaults, SHMD_ACL_TEXT_DEFAULT);
}

static json_t *list_json(const struct shmd_acl_entry *entries, size_t n) {
        static const char *const tags[] = {
                [SHMD_ACL_USER_OBJ] = "owner", [SHMD_ACL_USER] = "user", [SHMD_ACL_GROUP_OBJ] = "owning-group",
                [SHMD_ACL_GROUP] = "group", [SHMD_ACL_MASK] = "mask", [SHMD_ACL_OTHER] = "other",
        };
        json_t *array = json_array();

        for (size_t i = 0; i < n; ++i) {
                const struct shmd_acl_entry *entry = &entries[i];
                char name[OUTPUT_USER_MAX], perms[4];
                json_t *o = json_object();

                output_set(o, "tag", output_string(entry->tag <= SHMD_ACL_OTHER && tags[entry->tag] ?
                                                   tags[entry->tag] : "unknown"));
                if (acl_tag_is_named(entry->tag)) {
                        output_set(o, "id", json_integer(entry->id));
                        output_set(o, "name", output_string(entry->tag == SHMD_ACL_USER ?
                                                            output_user(name, entry->id) :
                                                            output_group(name, entry->id)));
                }
                output_set(o, "perms", output_string(perms_text(perms, entry->perms)));
                output_set(o, "effective", output_string(perms_text(perms, effective(entries, n, entry))));
                output_append(array, o);
        }
        return array;
}

static json_t *acl_json(const char *path, const struct shmd_acl_result *acl) {
        char name[OUTPUT_USER_MAX], mode[8];
        json_t *o = json_object();

        output_set(o, "path", output_string(path));
        output_set(o, "kind", output_string(acl->kind == SHMD_NODE_DIRECTORY ? "directory" : "region"));
        output_set(o, "uid", json_integer(acl->uid));
        output_set(o, "user", output_string(output_user(name, acl->uid)));
        output_set(o, "gid", json_integer(acl->gid));
        output_set(o, "group", output_string(output_group(name, acl->gid)));
        (void)snprintf(mode, sizeof(mode), "%04o", (unsigned int)acl->mode & 07777U);
        output_set(o, "mode", output_string(mode));
        output_set(o, "access", list_json(acl->access, acl->n_access));
        output_set(o, "default", list_json(acl->defaults, acl->n_defaults));
        return o;
}

/* shown: with --json, an array for what is shown; n: how many were shown before. */
static int show(Ctl *ctl, const AclArgs *args, const char *path, json_t *shown, int n) {
        CLEANUP(shmd_acl_freep) struct shmd_acl_result *result = NULL;
        int r;

        r = shmd_acl_get(ctl->client, path, &result, SHMD_TIMEOUT_DEFAULT);
        if (r < 0)
                return fail_call(ctl, path, r);
        if (shown) {
                output_append(shown, acl_json(path, result));
                return CTL_DONE;
        }
        if (n > 0)
                fputc('\n', stdout);
        print_acl(args, path, result);
        return CTL_DONE;
}

/* After a change only --json says what there is now. */
int command_acl(Ctl *ctl, int argc, char **argv) {
        AclArgs args = { .n_edits = 0 };
        json_t *shown;
        int code;

        ctl_parse(ctl, &args, argc, argv);
        code = ctl_connect(ctl);
        if (code)
                return code;

        shown = ctl->json ? json_array() : NULL;
        for (int i = 0; i < args.operands.n; ++i) {
                int r = args.n_edits ? change(ctl, &args, args.operands.names[i]) : CTL_DONE;

                if (!r && (shown || !args.n_edits))
                        r = show(ctl, &args, args.operands.names[i], shown, i);
                code = code ? code : r;
        }
        if (shown)
                output_json(shown, stdout);
        return code;
}
