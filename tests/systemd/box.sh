#!/bin/bash
# box.sh: a real systemd as process 1 of namespaces of its own, for one test. To be sourced.
#
#   box_start DIR   boots it; returns when its default target, an empty one, is reached; it may take $patience seconds
#                   until systemd answers
#   box_run CMD...  runs a command inside
#   box_stop        ends it and all that it started
#
# What the box shares with the machine is the kernel, its programs and its devices. The file system is the
# machine's, read-only; /etc is a copy, /run, /tmp and /var are new. What DIR/root has below its usr is to be
# seen in /usr, which is how an installation with DESTDIR=DIR/root gets in, and DIR is to be seen as /run/box. Units
# come from /run, from DIR/units (where there are empty stand-ins for the targets that any unit refers to), and
# from the folders that DIR/unitpath names, so that nothing of the machine's own is started. There is no network.
#
# It ends with the shell that started it. A cgroup, which is made below the root of the version 2 hierarchy and
# removed at the end, is all that the machine sees of it.

# -- from the outside ------------------------------------------------------------------------------------

box_dir=
box_init=               # process 1 of the box, as the machine numbers it
box_unshare=            # its parent

# With the hierarchy of cgroups mounted on DIR/cgroup, for that one command.
box_with_cgroups() {
        unshare --mount bash -c 'mount -t cgroup2 cgroup2 "$1/cgroup" && shift && "$@"' - "$box_dir" "$@"
}

# Says why not, if a box is impossible here.
box_is_possible() {
        if [ "$(id -u)" != 0 ]; then
                echo 'only root can make namespaces'
        elif [ ! -x /lib/systemd/systemd ]; then
                echo 'there is no systemd'
        elif ! unshare --pid --mount --uts --ipc --net --cgroup --fork true 2>/dev/null; then
                echo 'namespaces cannot be made here'
        fi
}

box_start() {
        local target end

        box_dir=$1
        mkdir -p "$box_dir"/{cgroup,units,root/usr,work}
        for target in box sysinit basic sockets timers paths multi-user shutdown umount final; do
                [ -e "$box_dir/units/$target.target" ] ||
                        printf '[Unit]\nDefaultDependencies=no\n' >"$box_dir/units/$target.target"
        done

        setpriv --pdeathsig KILL unshare --mount "${BASH_SOURCE[0]}" enclose "$box_dir" \
                </dev/null >"$box_dir/console" 2>&1 &
        box_unshare=$!
        # Sockets of the box are not to be reached by their paths from here; what it wrote is.
        end=$((SECONDS + patience))
        while (( SECONDS < end )); do
                # Its children come and go until the last one is process 1.
                kill -0 "$box_unshare" 2>/dev/null || break
                read -r box_init _ <"/proc/$box_unshare/task/$box_unshare/children"
                if [ -n "$box_init" ] && [ -S "/proc/$box_init/root/run/systemd/private" ]; then
                        box_run systemctl is-system-running --wait >/dev/null
                        return 0
                fi
                sleep 0.01
        done
        cat "$box_dir/console" >&2
        return 1
}

box_run() {
        nsenter --target "$box_init" --mount --pid --uts --ipc --net --cgroup -- "$@"
}

box_stop() {
        [ -n "$box_unshare" ] || return 0
        [ -z "$box_init" ] || kill -KILL "$box_init" 2>/dev/null
        kill -KILL "$box_unshare" 2>/dev/null
        wait "$box_unshare" 2>/dev/null
        box_unshare=
        box_init=
        [ ! -e "$box_dir/name" ] || box_with_cgroups bash -c '
                for (( tries = 0; tries < 1000; ++tries )); do
                        ! grep -qs "populated 1" "$1/cgroup.events" || { sleep 0.01; continue; }
                        find "$1" -depth -type d -exec rmdir {} +
                        break
                done
        ' - "$box_dir/cgroup/$(cat "$box_dir/name")"
}

# -- from the inside: this file run as a program ----------------------------------------------------------

# In a mount namespace: joins a new cgroup, which is to be the root of what the box sees.
enclose() {
        local group

        mount -t cgroup2 cgroup2 "$1/cgroup"
        # Groups are the machine's, and one may stay behind: of a name that nobody has.
        group=$(mktemp -d "$1/cgroup/shmd-test-XXXXXX")
        chmod 0755 "$group"
        echo "${group##*/}" >"$1/name"
        echo $$ >"$group/cgroup.procs"
        umount "$1/cgroup"
        exec unshare --pid --mount --uts --ipc --net --cgroup --fork --kill-child=KILL "$0" furnish "$1"
}

# As process 1 of everything new.
furnish() {
        local paths=

        mount -t proc proc /proc
        [ ! -e "$1/unitpath" ] || paths=:$(cat "$1/unitpath")

        cp -a /etc "$1/work/etc"
        mount --bind "$1/work/etc" /etc
        mount -o remount,bind,ro /
        mount -t tmpfs -o mode=0755 tmpfs /run
        mkdir -m 1777 /run/lock /run/box
        mount --bind "$1" /run/box
        mount -o remount,bind,rw /run/box
        mount -t tmpfs -o mode=1777 tmpfs /tmp
        mount -t tmpfs -o mode=0755 tmpfs /var
        mkdir -m 1777 /var/tmp

        # What is installed into /usr/local alone needs no more than that.
        if [ "$(ls /run/box/root/usr)" = local ]; then
                mount --bind /run/box/root/usr/local /usr/local
        elif [ -n "$(ls /run/box/root/usr)" ]; then
                mkdir /run/box/work/overlay
                mount -t overlay -o lowerdir=/usr,upperdir=/run/box/root/usr,workdir=/run/box/work/overlay overlay /usr
        fi
        ldconfig

        umount -R /sys/fs/cgroup
        mount -t cgroup2 cgroup2 /sys/fs/cgroup
        hostname box
        exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin container=shmd-test \
                SYSTEMD_UNIT_PATH="/run/systemd/transient:/run/systemd/system:/run/box/units$paths" \
                SYSTEMD_GENERATOR_PATH=/run/box/generators SYSTEMD_PROC_CMDLINE= \
                /lib/systemd/systemd --system --unit=box.target --show-status=no --log-target=null
}

if [ "${BASH_SOURCE[0]}" = "$0" ]; then
        set -eu
        case ${1:-}:$# in
        enclose:2 | furnish:2)
                "$@"
                ;;
        *)
                echo 'box.sh: to be sourced' >&2
                exit 2
                ;;
        esac
fi
