/* daemon/util/notify: what a keeper reads of its broker, who may be anybody. */

#include "daemon-house.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "util/notify.h"

static int parse(Notify *notify, const char *packet, size_t n_fds) {
        return notify_parse(notify, packet, strlen(packet), n_fds);
}

/* -- words -------------------------------------------------------------------------------- */

TEST(notify, the_words_of_a_broker_are_known) {
        Notify notify;

        REQUIRE(parse(&notify, "READY=1", 0) == 0 && notify.words == NOTIFY_READY);
        REQUIRE(parse(&notify, "WATCHDOG=1\n", 0) == 0 && notify.words == NOTIFY_WATCHDOG);
        REQUIRE(parse(&notify, "X_SHMD_UPGRADE=1", 0) == 0 && notify.words == NOTIFY_UPGRADE);
        REQUIRE(parse(&notify, "FDSTORE=1\nFDNAME=r17\nFDPOLL=0", 1) == 0 && notify.words == NOTIFY_STORE);
        REQUIRE(notify.n_names == 1 && !strcmp(notify.names[0], "r17"));
        REQUIRE(parse(&notify, "FDNAME=policy-3.a\nFDSTOREREMOVE=1", 0) == 0 && notify.words == NOTIFY_REMOVE);
        REQUIRE(notify.n_names == 1 && !strcmp(notify.names[0], "policy-3.a"));
        REQUIRE(parse(&notify, "BARRIER=1", 1) == 0 && notify.words == NOTIFY_BARRIER && notify.n_names == 0);
        REQUIRE(parse(&notify, "READY=1\nSTATUS=serving\nWATCHDOG=1", 0) == 0);
        cr_assert_eq(notify.words, NOTIFY_READY | NOTIFY_WATCHDOG);
        cr_assert_str_eq(notify.status, "serving");
}

TEST(notify, words_that_are_not_known_are_passed_over) {
        Notify notify;

        REQUIRE(parse(&notify, "STOPPING=1\nERRNO=2\n\nwithout a value\nREADY=1\n=", 0) == 0);
        cr_assert_eq(notify.words, NOTIFY_READY);
}

TEST(notify, a_word_that_is_known_has_one_spelling) {
        static const char *const packets[] = {
                "READY=0", "READY=", "READY=10", "READY=1 ", "WATCHDOG=trigger", "FDSTORE=2\nFDNAME=r1",
                "BARRIER=yes", "FDPOLL=1", "READY=1\nREADY=0",
        };
        Notify notify;

        for (size_t i = 0; i < sizeof(packets) / sizeof(*packets); ++i)
                cr_assert_eq(parse(&notify, packets[i], 0), NOTIFY_E_INVALID, "%s", packets[i]);
}

TEST(notify, a_name_is_of_a_small_alphabet) {
        static const char *const names[] = {
                "", ":", "r:1", "r 1", "r/1", "../r1", "r\xff", "r\x01", "r_1", "r1\r",
                "0123456789012345678901234567890x",
        };
        char packet[128];
        Notify notify;

        for (size_t i = 0; i < sizeof(names) / sizeof(*names); ++i) {
                (void)snprintf(packet, sizeof(packet), "FDSTOREREMOVE=1\nFDNAME=%s", names[i]);
                cr_assert_eq(parse(&notify, packet, 0), NOTIFY_E_INVALID, "%s", packet);
                (void)snprintf(packet, sizeof(packet), "FDSTORE=1\nFDNAME=r0\nFDNAME=%s\nFDPOLL=0", names[i]);
                for (size_t n_fds = 1; n_fds <= 2; ++n_fds)
                        cr_assert_eq(parse(&notify, packet, n_fds), NOTIFY_E_INVALID, "%s with %zu", packet, n_fds);
        }
        REQUIRE(parse(&notify, "FDSTOREREMOVE=1\nFDNAME=0123456789012345678901234567890", 0) == 0);
        cr_assert_eq(strlen(notify.names[0]), FDSTORE_NAME_MAX - 1);
}

TEST(notify, several_are_let_go_of_in_their_order_up_to_a_bound) {
        char packet[2 * NOTIFY_MAX], *end = stpcpy(packet, "FDSTOREREMOVE=1");
        Notify notify;

        for (size_t n = 1; n <= NOTIFY_FDS_MAX + 1; ++n) {
                end += sprintf(end, "\nFDNAME=%0*zu", FDSTORE_NAME_MAX - 1, n);
                memset(&notify, 0xff, sizeof(notify));
                if (n > NOTIFY_FDS_MAX) {
                        cr_assert_eq(parse(&notify, packet, 0), NOTIFY_E_INVALID);
                        break;
                }
                REQUIRE(parse(&notify, packet, 0) == 0 && notify.words == NOTIFY_REMOVE && notify.n_names == n);
                for (size_t i = 0; i < n; ++i)
                        cr_assert_eq(strtoul(notify.names[i], NULL, 10), i + 1);
                cr_assert_eq(parse(&notify, packet, n), NOTIFY_E_INVALID, "with descriptors it is none");
        }
}

/* A packet to keep so many, whose names have that many characters: "b-----". */
static void write_several(char packet[static 2 * NOTIFY_MAX], size_t n_names, int n_characters) {
        char *end = stpcpy(packet, "FDSTORE=1");

        for (size_t i = 0; i < n_names; ++i) {
                end += sprintf(end, "\nFDNAME=%*c", n_characters, (int)('a' + i));
                for (char *at = end - n_characters; at < end - 1; ++at)
                        *at = '-';
        }
        (void)strcpy(end, "\nFDPOLL=0\n");
}

TEST(notify, each_of_several_has_its_name) {
        char packet[2 * NOTIFY_MAX];
        Notify notify;

        for (size_t n = 1; n <= NOTIFY_FDS_MAX; ++n) {
                write_several(packet, n, FDSTORE_NAME_MAX - 1);
                memset(&notify, 0xff, sizeof(notify));
                REQUIRE(parse(&notify, packet, n) == 0 && notify.words == NOTIFY_STORE && notify.n_names == n);
                for (size_t i = 0; i < n; ++i) {
                        cr_assert_eq(strlen(notify.names[i]), FDSTORE_NAME_MAX - 1);
                        cr_assert_eq(notify.names[i][FDSTORE_NAME_MAX - 2], (char)('a' + i), "in their order");
                }
        }
        REQUIRE(parse(&notify, "FDNAME=r1\nFDPOLL=0\nFDNAME=r1\nFDSTORE=1", 2) == 0 && notify.n_names == 2,
                "what has the name of another is for the table of names to refuse");
}

TEST(notify, several_have_as_many_names_and_a_bound) {
        char packet[2 * NOTIFY_MAX];
        Notify notify;

        for (size_t n = 0; n <= NOTIFY_FDS_MAX + 2; ++n) {
                write_several(packet, n, 2);
                for (size_t n_fds = 0; n_fds <= 254; ++n_fds) {
                        bool good = n == n_fds && n >= 1 && n <= NOTIFY_FDS_MAX;

                        cr_assert_eq(parse(&notify, packet, n_fds), good ? 0 : NOTIFY_E_INVALID, "%zu names, %zu", n,
                                     n_fds);
                }
        }
}

TEST(notify, one_thing_is_asked) {
        static const struct {
                const char *packet;
                size_t n_fds;
        } cases[] = {
                { "FDSTORE=1\nFDNAME=r1", 0 }, { "FDSTORE=1\nFDNAME=r1", 2 }, { "FDSTORE=1", 1 }, { "FDNAME=r1", 0 },
                { "FDSTOREREMOVE=1", 0 }, { "FDSTOREREMOVE=1\nFDNAME=r1", 1 }, { "BARRIER=1", 0 }, { "BARRIER=1", 2 },
                { "FDSTOREREMOVE=1\nFDNAME=r1\nFDNAME=r:", 0 }, { "FDSTOREREMOVE=1\nFDNAME=r1\nFDNAME=r2", 2 },
                { "BARRIER=1\nFDNAME=r1\nFDNAME=r2", 2 }, { "FDNAME=r1\nFDNAME=r2", 2 },
                { "FDSTORE=1\nFDSTOREREMOVE=1\nFDNAME=r1\nFDNAME=r2", 2 },
                { "BARRIER=1\nFDNAME=r1", 1 }, { "READY=1", 1 }, { "READY=1\nFDNAME=r1", 0 },
                { "FDSTORE=1\nFDSTOREREMOVE=1\nFDNAME=r1", 1 }, { "FDSTORE=1\nBARRIER=1\nFDNAME=r1", 1 },
                { "FDSTOREREMOVE=1\nBARRIER=1\nFDNAME=r1", 0 },
        };
        Notify notify;

        for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); ++i)
                cr_assert_eq(parse(&notify, cases[i].packet, cases[i].n_fds), NOTIFY_E_INVALID, "%s with %zu",
                             cases[i].packet, cases[i].n_fds);
}

TEST(notify, a_packet_has_no_nul_and_a_bound) {
        char packet[NOTIFY_MAX + 1];
        Notify notify;

        cr_assert_eq(notify_parse(&notify, "READY=1", 8, 0), NOTIFY_E_INVALID);
        cr_assert_eq(notify_parse(&notify, "", 0, 0), NOTIFY_E_INVALID);
        memset(packet, 'x', sizeof(packet));
        cr_assert_eq(notify_parse(&notify, packet, NOTIFY_MAX, 0), 0);
        cr_assert_eq(notify_parse(&notify, packet, NOTIFY_MAX + 1, 0), NOTIFY_E_INVALID);
}

TEST(notify, a_status_is_cut_and_made_harmless) {
        char packet[NOTIFY_MAX];
        Notify notify;

        REQUIRE(parse(&notify, "STATUS=a\x1b[31m\x7f\xc3\xa4 b", 0) == 0);
        cr_assert_str_eq(notify.status, "a?[31m??? b");
        memset(packet, 'x', sizeof(packet));
        memcpy(packet, "STATUS=", 7);
        REQUIRE(notify_parse(&notify, packet, sizeof(packet), 0) == 0);
        cr_assert_eq(strlen(notify.status), NOTIFY_STATUS_MAX - 1);
        REQUIRE(parse(&notify, "STATUS=one\nSTATUS=2", 0) == 0);
        cr_assert_str_eq(notify.status, "2");
}

/* -- packets -------------------------------------------------------------------------------- */

static void make_pair(int pair[2]) {
        REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0);
}

static void send_with(int socket, const void *packet, size_t n, const int *fds, size_t n_fds) {
        union {
                struct cmsghdr header;
                char bytes[CMSG_SPACE(253 * sizeof(int))];
        } control = { .header = { .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS } };
        struct iovec part = { .iov_base = (void *)packet, .iov_len = n };
        struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1 };

        memcpy(CMSG_DATA(&control.header), fds, n_fds * sizeof(int));
        control.header.cmsg_len = CMSG_LEN(n_fds * sizeof(int));
        if (n_fds) {
                message.msg_control = &control;
                message.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
        }
        REQUIRE(sendmsg(socket, &message, MSG_DONTWAIT) == (ssize_t)n, "%s", strerror(errno));
}

/* Sends a packet with so many descriptors of one new file. */
static void send_packet(int socket, const void *packet, size_t n, size_t n_fds) {
        CLEANUP(close_fdp) int fd = memfd_create("test", MFD_CLOEXEC);
        int fds[253];

        REQUIRE(fd >= 0);
        for (size_t i = 0; i < n_fds; ++i)
                fds[i] = fd;
        send_with(socket, packet, n, fds, n_fds);
}

/* Sends a packet with so many files, of which the first has no byte, the second one, and so on. */
static void send_files(int socket, const void *packet, size_t n, size_t n_fds) {
        int fds[NOTIFY_FDS_MAX];

        for (size_t i = 0; i < n_fds; ++i) {
                fds[i] = memfd_create("test", MFD_CLOEXEC);
                REQUIRE(fds[i] >= 0 && ftruncate(fds[i], (off_t)i) == 0);
        }
        send_with(socket, packet, n, fds, n_fds);
        for (size_t i = 0; i < n_fds; ++i)
                close_fd(fds[i]);
}

static void close_all(Notify *notify) {
        while (notify->n_fds > 0)
                close_fd(notify->fds[--notify->n_fds]);
}

static int receive(int socket, Notify *ret) {
        int r = notify_peek(socket, ret);

        if (r == 0 || r == NOTIFY_E_INVALID)
                notify_drop(socket);
        return r;
}

TEST(notify, what_is_kept_is_inherited) {
        Notify notify;
        int pair[2];

        make_pair(pair);
        send_packet(pair[0], "FDSTORE=1\nFDNAME=r1", 19, 1);
        REQUIRE(receive(pair[1], &notify) == 0 && notify.words == NOTIFY_STORE && notify.n_fds == 1);
        cr_assert_eq(fcntl(notify.fds[0], F_GETFD), 0);
        close_all(&notify);
        cr_assert_eq(receive(pair[1], &notify), NOTIFY_E_AGAIN);
        close_fd(pair[0]);
        cr_assert_eq(receive(pair[1], &notify), NOTIFY_E_GONE);
        close_fd(pair[1]);
}

TEST(notify, what_was_looked_at_comes_again_and_what_was_taken_does_not) {
        Notify first, again;
        int pair[2];

        make_pair(pair);
        send_packet(pair[0], "FDSTORE=1\nFDNAME=r1", 19, 1);
        send_packet(pair[0], "FDSTOREREMOVE=1\nFDNAME=r2", 25, 0);
        REQUIRE(notify_peek(pair[1], &first) == 0 && !strcmp(first.names[0], "r1") && first.n_fds == 1);
        REQUIRE(notify_take(pair[1], &again) == 0 && !strcmp(again.names[0], "r1") && again.n_fds == 1);
        cr_assert(again.fds[0] != first.fds[0], "each has its own");
        cr_assert_eq(fcntl(again.fds[0], F_GETFD), 0);
        close_all(&first);
        close_all(&again);
        REQUIRE(notify_take(pair[1], &again) == 0 && !strcmp(again.names[0], "r2") && again.n_fds == 0);
        cr_assert_eq(notify_take(pair[1], &again), NOTIFY_E_AGAIN);
        close_fd(pair[0]);
        cr_assert_eq(notify_take(pair[1], &again), NOTIFY_E_GONE);
        close_fd(pair[1]);
}

TEST(notify, several_come_in_their_order_and_again) {
        char packet[2 * NOTIFY_MAX];
        Notify first, again;
        struct stat a, b;
        int pair[2];

        make_pair(pair);
        write_several(packet, NOTIFY_FDS_MAX, FDSTORE_NAME_MAX - 1);
        send_files(pair[0], packet, strlen(packet), NOTIFY_FDS_MAX);
        REQUIRE(notify_peek(pair[1], &first) == 0 && first.n_fds == NOTIFY_FDS_MAX && first.n_names == first.n_fds);
        REQUIRE(notify_take(pair[1], &again) == 0 && again.n_fds == NOTIFY_FDS_MAX);
        for (size_t i = 0; i < NOTIFY_FDS_MAX; ++i) {
                REQUIRE(fstat(first.fds[i], &a) == 0 && fstat(again.fds[i], &b) == 0);
                cr_assert(a.st_size == (off_t)i && a.st_ino == b.st_ino && first.fds[i] != again.fds[i]);
                cr_assert_eq(fcntl(again.fds[i], F_GETFD), 0);
        }
        close_all(&first);
        close_all(&again);
        cr_assert_eq(notify_take(pair[1], &again), NOTIFY_E_AGAIN);
        close_fd(pair[0]);
        close_fd(pair[1]);
}

TEST(notify, several_of_which_one_spoils_the_packet_leave_none) {
        static const struct {
                size_t n_names, n_fds;
        } cases[] = { { 15, 16 }, { 16, 15 }, { 17, 17 }, { 16, 17 }, { 17, 16 }, { 1, 16 }, { 16, 1 }, { 16, 253 } };
        char packet[2 * NOTIFY_MAX];
        Notify notify;
        int pair[2];

        make_pair(pair);
        for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); ++i) {
                write_several(packet, cases[i].n_names, 3);
                send_packet(pair[0], packet, strlen(packet), cases[i].n_fds);
                REQUIRE(receive(pair[1], &notify) == NOTIFY_E_INVALID && notify.n_fds == 0, "case %zu", i);
        }
        write_several(packet, NOTIFY_FDS_MAX, 3);
        packet[strlen(packet) - strlen("\nFDPOLL=0\n") - 1] = ':';
        send_packet(pair[0], packet, strlen(packet), NOTIFY_FDS_MAX);
        REQUIRE(receive(pair[1], &notify) == NOTIFY_E_INVALID && notify.n_fds == 0, "the last name is none");
        close_fd(pair[0]);
        close_fd(pair[1]);
}

TEST(notify, a_packet_that_is_too_long_has_no_names) {
        char packet[2 * NOTIFY_MAX];
        Notify notify;
        int pair[2];

        REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0);
        memset(packet, 'x', sizeof(packet));
        memset(&notify, 0xff, sizeof(notify));
        REQUIRE(send(pair[0], packet, sizeof(packet), MSG_NOSIGNAL) == (ssize_t)sizeof(packet));
        REQUIRE(notify_peek(pair[1], &notify) == NOTIFY_E_INVALID && notify.n_names == 0 && notify.n_fds == 0);
        memset(&notify, 0xff, sizeof(notify));
        REQUIRE(notify_take(pair[1], &notify) == NOTIFY_E_INVALID && notify.n_names == 0 && notify.n_fds == 0);
        close_fdp(&pair[0]);
        close_fdp(&pair[1]);
}

/* However many descriptors come with whatever packet: TEST() counts what is left of them. */
TEST(notify, a_packet_that_is_refused_leaves_no_descriptor) {
        static const size_t counts[] = { 0, 1, 2, 3, 15, 16, 17, 18, 19, 100, 253 };
        static const char *const packets[] = { "READY=1", "FDSTORE=1", "BARRIER=1\nFDNAME=r1", "FDNAME=:", "x" };
        char huge[65536];
        Notify notify;
        int pair[2];

        make_pair(pair);
        memset(huge, 'x', sizeof(huge));
        for (size_t i = 0; i < sizeof(counts) / sizeof(*counts); ++i) {
                for (size_t j = 0; j < sizeof(packets) / sizeof(*packets); ++j) {
                        bool good = counts[i] == 0 && (j == 0 || j == 4);

                        send_packet(pair[0], packets[j], strlen(packets[j]), counts[i]);
                        cr_assert_eq(receive(pair[1], &notify), good ? 0 : NOTIFY_E_INVALID);
                        cr_assert_eq(notify.n_fds, 0);
                }
                send_packet(pair[0], huge, sizeof(huge), counts[i]);
                cr_assert_eq(receive(pair[1], &notify), NOTIFY_E_INVALID);
                if (counts[i] > 1) {
                        send_packet(pair[0], "FDSTORE=1\nFDNAME=r1", 19, counts[i]);
                        cr_assert_eq(receive(pair[1], &notify), NOTIFY_E_INVALID);
                        cr_assert_eq(notify.n_fds, 0);
                }
        }
        close_fd(pair[0]);
        close_fd(pair[1]);
}

TEST(notify, an_empty_packet_is_an_end) {
        Notify notify;
        int pair[2];

        make_pair(pair);
        REQUIRE(send(pair[0], "", 0, 0) == 0);
        cr_assert_eq(receive(pair[1], &notify), NOTIFY_E_GONE);
        send_packet(pair[0], "", 0, 3);
        cr_assert_eq(receive(pair[1], &notify), NOTIFY_E_GONE);
        cr_assert_eq(notify.n_fds, 0);
        close_fd(pair[0]);
        close_fd(pair[1]);
}

/* There is room for one less than come. */
static int receive_without_room(void *userdata) {
        size_t n_fds = *(const size_t *)userdata, n_open;
        char packet[2 * NOTIFY_MAX];
        struct rlimit limit;
        Notify notify;
        int pair[2];

        make_pair(pair);
        n_open = test_count_fds();
        write_several(packet, n_fds, 3);
        send_packet(pair[0], packet, strlen(packet), n_fds);
        test_leave_fds((unsigned int)n_fds - 1, &limit);
        REQUIRE(receive(pair[1], &notify) == NOTIFY_E_INVALID && notify.n_fds == 0, "one was lost");
        REQUIRE(setrlimit(RLIMIT_NOFILE, &limit) == 0 && test_count_fds() == n_open, "and so are the others");
        return 0;
}

TEST(notify, a_descriptor_that_found_no_room_is_not_there) {
        house_expect_child(receive_without_room, &(size_t){ 1 });
        house_expect_child(receive_without_room, &(size_t){ NOTIFY_FDS_MAX });
}
