#!/bin/bash
# shmdctl against a real broker: every command, every exit code, all of its JSON.
#
# Each check prints "ok - SENTENCE" or "not ok - SENTENCE"; the last line counts them. A private
# broker runs for the whole of it, in a directory of its own, and must end with status 0 and
# balanced books, so that this is a test of its accounting as well. As root the broker becomes an
# unprivileged user and clients are alice, bob (uids that need not exist) and root; otherwise
# what needs other users is skipped, which SHMD_NO_SKIP=1 turns into a failure.

set -u
export LC_ALL=C.UTF-8 TZ=UTC
unset SHMD_SOCKET XDG_RUNTIME_DIR

# The interpreter itself: what is in the PATH may be a script that looks for it, each time.
python3=$(python3 -c 'import sys; print(sys.executable)') || exit 99

build=${SHMD_TEST_BUILDDIR:-.}
source=${SHMD_TEST_SRCDIR:-.}
here=$source/tests/integration
broker_uid=64055
alice=64101
bob=64102
passed=0
failed=0
skipped=0

umask 022
dir=$(mktemp -d "${TMPDIR:-/tmp}/shmdctl-test.XXXXXX") || exit 99
mkdir "$dir/run" "$dir/bin" "$dir/tmp"
chmod 0755 "$dir" "$dir/bin"
chmod 1777 "$dir/run" "$dir/tmp"
socket=$dir/run/socket
out=$dir/out
err=$dir/err
broker=

# What libtool would run, without its wrapper: other users may not read the build directory.
if [ -x "$build/.libs/shmdctl" ]; then
        cp "$build/.libs/shmdctl" "$build"/.libs/libshmd.so.0 "$dir/bin" || exit 99
        export LD_LIBRARY_PATH=$dir/bin
else
        cp "$build/shmdctl" "$dir/bin" || exit 99
fi
cp "$build/shmd" "$dir/bin" || exit 99
export PATH=$dir/bin:$PATH

cleanup() {
        local job

        for job in $(jobs -p); do
                kill -KILL "$job" 2>/dev/null
        done
        [ -z "$broker" ] || kill -KILL "$broker" 2>/dev/null
        rm -rf "$dir"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

# -- checking --------------------------------------------------------------------------------

ok() {
        echo "ok - $1"
        passed=$((passed + 1))
}

not_ok() {
        echo "not ok - $1"
        shift
        [ $# -eq 0 ] || printf '    %s\n' "$@"
        [ ! -s "$out" ] || sed 's/^/    out: /' "$out" | head -n 20
        [ ! -s "$err" ] || sed 's/^/    err: /' "$err" | head -n 20
        failed=$((failed + 1))
}

skip() {
        if [ "${SHMD_NO_SKIP:-0}" = 1 ]; then
                not_ok "$1" "$2, and SHMD_NO_SKIP=1 is set"
        else
                skipped=$((skipped + 1))
                echo "skipped - $1: $2"
        fi
}

# check SENTENCE COMMAND...: the command succeeds.
check() {
        local sentence=$1

        shift
        if "$@"; then ok "$sentence"; else not_ok "$sentence" "failed: $*"; fi
}

# as USER COMMAND...: runs it as that uid; with a deadline that only a hang reaches.
as() {
        local uid=$1

        shift
        if [ "$uid" = "$(id -u)" ]; then
                timeout -s KILL 300 "$@"
        else
                timeout -s KILL 300 setpriv --reuid="$uid" --regid="$uid" --clear-groups "$@"
        fi
}

# run_as UID ARGS...: shmdctl; leaves $out, $err and $status. With $again it is run again while that is what it
# complains of: a --timeout is for the connection as well, which a busy machine may not make in time.
run_as() {
        local uid=$1 tries

        shift
        for (( tries = 0; tries < 100; ++tries )); do
                as "$uid" shmdctl --socket="$socket" "$@" >"$out" 2>"$err"
                status=$?
                [ -n "${again:-}" ] && grep -qF -- "$again" "$err" || break
        done
}

# expect_as UID SENTENCE STATUS ARGS...: shmdctl exits with STATUS; unless that is 0, it says why
# on standard error and nothing on standard output.
expect_as() {
        local uid=$1 sentence=$2 wanted=$3

        shift 3
        run_as "$uid" "$@"
        if [ "$status" -ne "$wanted" ]; then
                not_ok "$sentence" "shmdctl $*" "exit status $status, not $wanted"
        elif [ "$wanted" -ne 0 ] && { [ ! -s "$err" ] || [ -s "$out" ]; }; then
                not_ok "$sentence" "shmdctl $*" "a failure is told on standard error alone"
        elif [ "$wanted" -eq 0 ] && [ -s "$err" ]; then
                not_ok "$sentence" "shmdctl $*" "success says nothing on standard error"
        else
                ok "$sentence"
        fi
}

expect() {
        expect_as "$me" "$@"
}

# says SENTENCE PATTERN: the last standard output matches an extended regular expression.
says() {
        if grep -Eq -- "$2" "$out"; then ok "$1"; else not_ok "$1" "no line matches $2"; fi
}

# complains SENTENCE PATTERN: the same of standard error.
complains() {
        if grep -Eq -- "$2" "$err"; then ok "$1"; else not_ok "$1" "no line of standard error matches $2"; fi
}

# python EXPRESSION FILE: it holds for d, the JSON value that the file is.
python() {
        "$python3" -I -c 'import json, sys
d = json.load(open(sys.argv[2]))
sys.exit(0 if eval(sys.argv[1]) else 1)' "$1" "$2"
}

# json SENTENCE EXPRESSION ARGS...: shmdctl --json succeeds, prints JSON, and the expression holds.
json() {
        json_as "$me" "$@"
}

json_as() {
        local uid=$1 sentence=$2 expression=$3

        shift 3
        run_as "$uid" --json "$@"
        if [ "$status" -eq 0 ] && python "$expression" "$out"; then
                ok "$sentence"
        else
                not_ok "$sentence" "shmdctl --json $*" "exit status $status; wanted $expression"
        fi
}

# json_error SENTENCE STATUS EXPRESSION ARGS...: shmdctl --json fails so and says why in JSON.
json_error() {
        json_error_as "$me" "$@"
}

json_error_as() {
        local uid=$1 sentence=$2 wanted=$3 expression=$4

        shift 4
        run_as "$uid" --json "$@"
        if [ "$status" -eq "$wanted" ] && python "$expression" "$err"; then
                ok "$sentence"
        else
                not_ok "$sentence" "shmdctl --json $*" "exit status $status, not $wanted; or not $expression"
        fi
}

# eventually COMMAND...: it succeeds at last.
eventually() {
        for _ in $(seq 400); do
                "$@" && return 0
                sleep 0.05
        done
        return 1
}

field() {
        "$python3" -I -c 'import json, sys
d = json.load(sys.stdin)
print(eval(sys.argv[1]))' "$1"
}

used_bytes() {
        as "$1" shmdctl --socket="$socket" df --json | field 'd["slots"]["bytes"]["used"]'
}

uses_bytes() {
        [ "$(used_bytes "$1")" = "$2" ]
}

kept_broker() {
        sed -n 's/.*event=broker-ready pid=\([0-9]*\).*/\1/p' "$dir/kept.log" | tail -n 1
}

# Beside the broker of all the others, one with a keeper.
test_restart() {
        local keeper holder watcher json n_made=0 kept=$dir/kept

        "$dir/bin/shmd" --socket "$kept" --config "$dir/shmd.conf" --policy-root "$dir" 2>"$dir/kept.log" &
        keeper=$!
        check 'a keeper starts its broker' eventually grep -q 'event=broker-ready' "$dir/kept.log"
        shmdctl --socket="$kept" create /s 4K --lifetime=session --hold >"$dir/held" 2>"$dir/held.err" &
        holder=$!
        check 'create --hold holds' eventually grep -q created "$dir/held"
        shmdctl --socket="$kept" watch >"$dir/watched" 2>"$dir/watch.err" &
        watcher=$!
        shmdctl --socket="$kept" watch --json >"$dir/watched.json" 2>"$err" &
        json=$!
        check 'two watch' eventually eval 'shmdctl --socket="$kept" mkdir --quiet /d$((n_made += 1))
                grep -q /d "$dir/watched" && grep -q /d "$dir/watched.json"'
        kill -KILL "$(kept_broker)"
        check 'a command goes through a restart' as "$me" shmdctl --socket="$kept" mkdir /after
        check 'what is held in a session is there after it' as "$me" shmdctl --socket="$kept" stat /s
        check 'watch says that the broker is back' eventually grep -qx 'shmdctl: the broker is back' "$dir/watch.err"
        check 'and that it was gone' grep -qx 'shmdctl: the broker is gone; waiting for it to come back' "$dir/watch.err"
        check 'so does create --hold' eventually grep -qx 'shmdctl: the broker is back' "$dir/held.err"
        check 'watch --json says so in a line' eventually grep -qx '{"event": "reconnected", "resumed": true}' \
                "$dir/watched.json"
        as "$me" shmdctl --socket="$kept" rmdir /after
        check 'watch goes on' eventually grep -qx 'removed /after' "$dir/watched"
        check 'so does watch --json' eventually grep -q '"removed".*"/after"' "$dir/watched.json"
        check 'each of its lines is JSON' "$python3" -I -c 'import json, sys
for line in open(sys.argv[1]):
        json.loads(line)' "$dir/watched.json"
        check 'top on a terminal goes on when the broker is back' env LC_ALL=C KEEPER="$keeper" BROKER="$(kept_broker)" \
                "$python3" -I "$here/ctl-screen.py" returns "$dir/bin/shmdctl" --socket="$kept" top --delay=100ms
        kill "$watcher" "$json" "$holder"
        wait "$watcher" "$json" "$holder"
        kill -TERM "$keeper"
        wait "$keeper"
        check 'the keeper ends well' [ $? -eq 0 ]
}

# -- the broker --------------------------------------------------------------------------------

start_broker() {
        {
                echo '[daemon]'
                [ "$(id -u)" -ne 0 ] || echo "user = $broker_uid"
                cat <<END
[global]
bytes = 64G
[account]
bytes = 4G
regions = 4096
[account $bob]
bytes = 8M
regions = 4
[time]
helper = 20s
END
        } >"$dir/shmd.conf"
        chmod 0644 "$dir/shmd.conf"

        "$dir/bin/shmd" --no-keeper --socket "$socket" --config "$dir/shmd.conf" --policy-root "$dir" 2>"$dir/log" &
        broker=$!
        if ! eventually grep -q 'event=ready' "$dir/log"; then
                echo "not ok - the broker starts"
                sed 's/^/    /' "$dir/log"
                echo "$passed passed, 1 failed"
                exit 1
        fi
}

stop_broker() {
        local status

        kill -TERM "$broker"
        wait "$broker"
        status=$?
        broker=
        if [ "$status" -eq 0 ] && grep -q 'books=balanced' "$dir/log"; then
                ok 'the broker ends with balanced books after all of this'
        else
                not_ok 'the broker ends with balanced books after all of this' "exit status $status" "$(tail -n 5 "$dir/log")"
        fi
}

# -- without a broker --------------------------------------------------------------------------

commands='create put publish cat ticket redeem tickets revoke bell ls stat holders map rm mv ln freeze expire mkdir rmdir chmod chown acl why wait watch df reload state upgrade ping stats metrics top doctor version help'

test_usage() {
        local command pattern

        expect 'help lists the commands' 0 help
        for command in $commands; do
                says "help lists $command" "^  $command +[A-Z]"
        done
        expect '--help is help' 0 --help
        cp "$out" "$dir/help"
        check '-h is --help' cmp -s <(shmdctl -h) "$dir/help"
        for command in $commands; do
                expect "$command --help needs no broker" 0 "$command" --help
                says "$command --help says how it is used" "^Usage: shmdctl $command "
                says "$command --help has the options of every command" '--socket=PATH'
                check "$command --help has no word that is longer than its column" [ -z "$(grep -oE '[^ ]{50,}' "$out")" ]
                cp "$out" "$dir/help"
                check "help $command says the same" cmp -s <(shmdctl help "$command") "$dir/help"
        done
        for command in create put publish cat ls stat holders map rm mv ln freeze expire mkdir rmdir chmod chown acl why wait watch df ping stats metrics top doctor help; do
                run_as "$me" "$command" --help
                says "$command --help has examples" "^  .*shmdctl $command"
        done

        expect 'no command is a usage error' 2
        expect 'an unknown command is a usage error' 2 frobnicate
        expect 'an unknown option is a usage error' 2 ls --frobnicate
        complains 'a usage error points to the help of the command' 'shmdctl ls --help'
        while IFS= read -r pattern; do
                # shellcheck disable=SC2086 # the words of a command line
                expect "'$pattern' is a usage error" 2 $pattern
        done <<'END'
create
create /a
create /a 1 2
create /a -1
create /a 1X
create /a 1 --mode=8
create /a 1 --mode=1777
create /a 1 --lifetime=long
create /a 1 --lifetime=session
create /a 1 --open --exclusive
create /a 1 --huge=3M
create - 1
create - 1 --hold --open
create a 1
create /a/ 1
create /a//b 1
create /a/../b 1
put
put a
put /a file more
publish
publish x /a
publish 1 a
cat
cat a
cat /a /b
ls a
ls /a /b
ls --orphans /
ls --orphans -R
stat
stat /a --id=1
stat --id=x
stat --id=1 --pages
holders
holders a
holders /a /b
holders /a --id=1
map
map a
map /a /b
rm
rm a
mv
mv /a
mv /a b
mv a /b
mv /a /b /c
mv -n -x /a /b
ln
ln /a
ln /a b
ln /a /b /c
mkdir
mkdir /a -m 2000
rmdir
chmod 0644
chmod a /a
chmod 2000 /a
chown 0
chown : /a
chown 4294967295 /a
acl
acl a
acl -m
acl -m u:root:rwz /a
acl -m u:no-such-user-here:r /a
acl -m , /a
acl -x u:root:r /a
acl --set u::8 /a
why
why open
why fly /a
why open a
why open /a /b
why rename /a
why --as=no-such-user-here open /a
wait
wait a
df extra
df --total --accounts
df --user=no-such-user-here
ping extra
ping -c x
ping -i 1x
ping -c 0 --json
stats extra
metrics extra
doctor extra
top extra
top --sort=colour
top --delay=1ms
top -n 0
version extra
help frobnicate
ls --timeout=0
ls --timeout=1x
ls --socket=
END
        run_as "$me" create /a 1 --lifetime=session
        complains 'a session without --hold is told why' 'needs --hold.*would end with this command'
        run_as "$me" rm $'/a\e[31m'
        check 'no escape sequence of a name reaches standard error' eval '[ "$status" -eq 2 ] && ! grep -q "$(printf "\033")" "$err"'

        expect 'without a broker commands fail' 1 ls
        complains 'without a broker the error says where it looked' "^shmdctl: $socket: no broker there: "
        json_error 'without a broker the error is JSON on request' 1 'd["errno"] == "ENOENT" and d["exit"] == 1' ls
        as "$me" env SHMD_SOCKET=/none/socket shmdctl ls 2>"$err"
        complains 'also if SHMD_SOCKET said where' '^shmdctl: /none/socket: no broker there: '
        run_as "$me" version
        check 'version prints tool and library without a broker, and fails' \
                eval '[ "$status" -eq 1 ] && [ "$(cut -d" " -f1 "$out" | tr "\n" " ")" = "shmdctl libshmd " ]'
        expect '--version needs no broker' 0 --version
        run_as "$me" --help
        timeout -s KILL 60 shmdctl --help >/dev/full 2>"$err"
        check 'help that cannot be written is a failure' [ $? -eq 1 ]
}

# -- looking at the broker -----------------------------------------------------------------------

test_broker() {
        expect 'ping gets an answer' 0 ping
        says 'ping says how long it took' "^answer from $socket: [0-9.]+[num]?s\$"
        expect 'ping -c 3 asks three times' 0 ping -c 3 -i 1ms
        check 'ping -c 3 prints three answers and a summary' [ "$(grep -c . "$out")" -eq 4 ]
        json 'ping --json has the figures' 'd["answers"] == 2 and d["min_ns"] <= d["mean_ns"] <= d["max_ns"]' ping -c 2 -i 0s
        json 'ping --json without --busy-poll has none' 'd["busy_poll"] is False' ping
        json 'ping --busy-poll says whether it is granted' "d['busy_poll'] is $([ "$(nproc)" -gt 1 ] && echo True || echo False)" \
                ping -c 2 -i 0s --busy-poll --quiet
        run_as "$me" ping --quiet
        check 'ping --quiet says nothing' [ "$status" -eq 0 -a ! -s "$out" ]

        expect 'version asks the broker as well' 0 version
        says 'version names the broker and its socket' "^shmd [0-9.]+ at $socket\$"
        json 'version --json has all three' 'd["shmdctl"] and d["libshmd"] and d["shmd"]' version
        check 'SHMD_SOCKET says where the broker is' \
                as "$me" env SHMD_SOCKET="$socket" shmdctl ping --quiet
        check 'options may stand before and after the command' \
                as "$me" shmdctl --quiet ping --socket="$socket"

        kill -STOP "$broker"
        expect 'a broker that does not answer is a deadline' 124 ping --timeout=300ms
        json_error 'the deadline is JSON on request' 124 'd["errno"] == "ETIMEDOUT" and d["exit"] == 124' \
                ls --timeout=300ms
        kill -CONT "$broker"
        expect 'the broker goes on afterwards' 0 ping
}

# -- regions ------------------------------------------------------------------------------------

# Starts shmdctl ARGS... --hold in the background as UID; leaves $held and $out.
hold_as() {
        local uid=$1

        shift
        : >"$out"
        if [ "$uid" = "$(id -u)" ]; then
                shmdctl --socket="$socket" "$@" --hold >"$out" 2>"$err" &
        else
                setpriv --reuid="$uid" --regid="$uid" --clear-groups \
                        shmdctl --socket="$socket" "$@" --hold >"$out" 2>"$err" &
        fi
        held=$!
        eventually test -s "$out"
}

release() {
        kill -TERM "$held"
        wait "$held" 2>/dev/null
}

test_create() {
        local id blocks

        expect 'create makes a region' 0 create /plain 64K
        says 'create says that it was created' '^created /plain: region [0-9]+, 64K$'
        expect 'a name that is taken is a failure' 1 create /plain 64K
        complains 'a name that is taken is named' '^shmdctl: /plain: exists already'
        expect '--exclusive is the default, spelt out' 1 create /plain 64K --exclusive
        expect '--open opens what is there' 0 create /plain 1M --open
        says '--open says that it was opened, and its own size' '^opened /plain: region [0-9]+, 64K$'
        expect '--open creates what is not there' 0 create /opened 4097 --open --mode=0640 --bytes
        says '--bytes prints the exact size' '^created /opened: region [0-9]+, 4097$'
        json 'create --json has outcome, number and size' \
                'd["outcome"] == "created" and d["path"] == "/j" and d["region"] > 0 and d["size"] == 0' create /j 0
        run_as "$me" create /q 1 --quiet
        check '--quiet says nothing' [ "$status" -eq 0 -a ! -s "$out" ]
        json 'stat shows mode, size and charge' \
                'd["mode"] == "0640" and d["size"] == 4097 and d["charge"] == 8192 and d["lifetime"] == "named"' stat /opened
        json 'an ordinary region is sealed for good' \
                '{"grow", "shrink", "seal"} <= set(d["seals"]) and not d["freezable"]' stat /opened
        expect 'create --freezable' 0 create /freezable 4K --freezable
        json 'a freezable region can be sealed further' \
                'd["freezable"] and "seal" not in d["seals"] and "shrink" in d["seals"]' stat /freezable
        expect 'create --reserve' 0 create /reserved 1M --reserve
        json_error 'huge pages of no size the kernel has are refused' 1 'd["exit"] == 1' create /huge 2M --huge=1P
        check 'a refused create leaves no name' eval 'run_as "$me" stat /huge; [ "$status" -eq 3 ]'
        expect 'rm takes them away' 0 rm /plain /opened /j /q /freezable /reserved
        expect 'what was taken away is not found' 3 stat /plain

        check '--hold says what was created before it waits' hold_as "$me" create /session 8M --lifetime=session
        says 'a session region is created' '^created /session: '
        json 'a session region says so' 'd["lifetime"] == "session" and d["held"] in (True, None)' stat /session
        json 'its holder is listed' \
                'len(d["holders"]) == 1 and d["holders"][0]["pid"] == '"$held"' and d["holders"][0]["uid"] == '"$me"' and d["holders"][0]["rights"] == "read-write" and d["holders"][0]["connected"]' \
                stat /session --holders
        expect 'stat --holders is a table' 0 stat /session --holders
        says 'the table has titles' '^ *GRANT +USER +PID +RIGHTS +AGE +MARKED +CONNECTED +TICKET +COMMAND +UNIT$'
        says 'the table has the holder' "read-write .* yes +no +(shmdctl|-) +[^ ]+\$"
        expect 'stat is lines' 0 stat /session
        says 'stat shows the seals by name' '^ *seals .*grow'
        check 'cat of a region nobody wrote is zeros' cmp -s -n 8388608 /dev/zero <(as "$me" shmdctl --socket="$socket" cat /session)
        check 'cat of a region nobody wrote is as long as the region' \
                [ "$(as "$me" shmdctl --socket="$socket" cat /session | wc -c)" -eq 8388608 ]
        blocks=$(for fd in /proc/"$held"/fd/*; do
                case $(readlink "$fd") in */memfd:* | memfd:*) stat -L -c %b "$fd" ;; esac
        done)
        check 'cat allocates nothing where nothing was written' [ "$blocks" = 0 ]
        release
        check 'a session region ends with its session' eventually eval 'run_as "$me" stat /session; [ "$status" -eq 3 ]'

        check 'a region without a name is held' hold_as "$me" --json create - 64K
        id=$(field 'd["region"]' <"$out")
        expect 'ls --orphans lists it' 0 ls --orphans
        check 'by its number alone' [ "$(cat "$out")" = "$id" ]
        expect 'ls -lo has details' 0 ls -lo
        says 'and the number for a name' "^-rw------- .* 64K .* $id\$"
        json 'ls --orphans --json has nodes' '[(n["region"], n["path"]) for n in d] == [('"$id"', None)]' ls --orphans
        json 'a region without a name is found by its number' \
                'd["region"] == '"$id"' and d["size"] == 65536 and d["path"] is None' stat --id="$id"
        expect 'publish gives it its name' 0 publish "$id" /published
        says 'publish says so' "^published /published: region $id\$"
        expect 'publish once' 1 publish "$id" /again
        json 'what has a name is no orphan' 'd == []' ls --orphans
        release
        json 'a published region outlives its maker' 'd["region"] == '"$id" stat /published

        check 'another region without a name is held' hold_as "$me" --json create - 4K
        id=$(field 'd["region"]' <"$out")
        expect 'publish does not take a name' 1 publish "$id" /published
        json 'publish --replace does' 'd["region"] == '"$id"' and d["path"] == "/published"' \
                publish "$id" /published --replace
        json 'the name has the other region' 'd["region"] == '"$id" stat /published
        release
        expect 'publish of no region is not found' 3 publish 999999999 /nothing
        expect 'rm /published' 0 rm /published
        check 'what nobody holds is given back' eventually uses_bytes "$me" 0
}

# -- put and cat -----------------------------------------------------------------------------------

# round_trip SENTENCE FILE: through a file argument, a file on standard input, and a pipe.
round_trip() {
        local sentence=$1 file=$2 how

        for how in argument input pipe; do
                case $how in
                argument) as "$me" shmdctl --socket="$socket" put /trip "$file" --replace >"$out" 2>"$err" ;;
                input)    as "$me" shmdctl --socket="$socket" put /trip --replace <"$file" >"$out" 2>"$err" ;;
                pipe)     cat "$file" | as "$me" shmdctl --socket="$socket" put /trip - --replace >"$out" 2>"$err" ;;
                esac
                status=$?
                if [ "$status" -eq 0 ] && as "$me" shmdctl --socket="$socket" cat /trip 2>"$err" | cmp - "$file"; then
                        ok "put ($how) then cat returns the same: $sentence"
                else
                        not_ok "put ($how) then cat returns the same: $sentence" "put: exit status $status"
                fi
        done
        json "the region is exactly as long: $sentence" 'd["size"] == '"$(stat -c %s "$file")" stat /trip
}

# A file of 1 GiB + 1 in which no two pages are alike.
big_file() {
        [ -s "$dir/big" ] || "$python3" -I -c 'import os, sys
block = bytearray(os.urandom(1 << 20))
for i in range(1024):
    for page in range(0, len(block), 4096):
        block[page:page + 8] = (i << 20 | page).to_bytes(8, "little")
    sys.stdout.buffer.write(block)
sys.stdout.buffer.write(b"!")' >"$dir/big"
}

test_put() {
        local length

        for length in 0 1 4095 4096 4097; do
                head -c "$length" /dev/urandom >"$dir/file"
                round_trip "$length bytes" "$dir/file"
        done
        big_file
        round_trip '1 GiB + 1 bytes' "$dir/big"

        printf 'first' >"$dir/file"
        expect 'put does not take a name' 1 put /trip "$dir/file"
        complains 'put says how to take it' '--replace'
        json 'put --json has name, number and size' \
                'd["path"] == "/trip" and d["size"] == 5 and d["region"] > 0' put /trip "$dir/file" --replace
        expect 'put says what it did' 0 put /trip "$dir/file" --replace --mode=0644 --reserve
        says 'put prints one line' '^put /trip: region [0-9]+, 5$'
        json 'put has set the mode' 'd["mode"] == "0644"' stat /trip
        exec 3<"$dir/file"
        dd bs=1 count=2 status=none <&3 >/dev/null
        as "$me" shmdctl --socket="$socket" put /rest <&3 >"$out" 2>"$err"
        exec 3<&-
        check 'put takes standard input from where it stands' \
                [ "$(as "$me" shmdctl --socket="$socket" cat /rest)" = rst ]
        as "$me" shmdctl --socket="$socket" put /proc-file /proc/version --quiet
        check 'put of a file that says it is empty and is not' \
                cmp -s <(as "$me" shmdctl --socket="$socket" cat /proc-file) /proc/version
        as "$me" shmdctl --socket="$socket" rm /proc-file /rest >"$out" 2>"$err"

        expect 'put of a file that is not there' 1 put /none "$dir/none"
        expect 'put of a directory' 1 put /none "$dir"
        expect 'put into a directory that is not there' 3 put /none/file "$dir/file"
        expect 'put to a name below a region' 1 put /trip/file "$dir/file"
        run_as "$me" put /none <&-
        check 'put without a standard input fails' [ "$status" -eq 1 ]
        expect 'what failed left no name' 3 stat /none

        expect 'cat of what is not there' 3 cat /none
        as "$me" shmdctl --socket="$socket" put /trip "$dir/big" --replace --quiet
        as "$me" shmdctl --socket="$socket" cat /trip >/dev/full 2>"$err"
        check 'cat to a full device fails' [ $? -eq 1 ]
        complains 'cat to a full device says so' '^shmdctl: standard output: '
        as "$me" shmdctl --socket="$socket" cat /trip 2>"$err" | head -c 1 >/dev/null
        check 'cat into a pipe that nobody reads ends as cat(1) does, quietly' [ "${PIPESTATUS[0]}" -eq 141 -a ! -s "$err" ]
        as "$me" env --ignore-signal=PIPE shmdctl --socket="$socket" cat /trip 2>"$err" | head -c 1 >/dev/null
        check 'the same with SIGPIPE ignored' [ "${PIPESTATUS[0]}" -eq 1 -a ! -s "$err" ]
        as "$me" shmdctl --socket="$socket" cat /trip >&- 2>"$err"
        check 'cat without a standard output fails' [ $? -eq 1 ]
        as "$me" shmdctl --socket="$socket" rm /trip
        check 'all is given back' eventually uses_bytes "$me" 0
}

# The line of a put in the background; its standard input comes from a FIFO that we hold open.
test_put_interrupted() {
        local put status=0

        mkfifo "$dir/fifo"
        env --default-signal=INT shmdctl --socket="$socket" put /half "$dir/fifo" >"$out" 2>"$err" &
        put=$!
        exec 3>"$dir/fifo"
        head -c 33554432 "$dir/big" >&3
        check 'a name is not there before all has come' eval 'run_as "$me" stat /half; [ "$status" -eq 3 ]'
        kill -INT "$put"
        wait "$put"
        check 'put is ended by SIGINT' [ $? -eq 130 ]
        exec 3>&-
        check 'put that was interrupted leaves no name' eval 'run_as "$me" stat /half; [ "$status" -eq 3 ]'
        check 'put that was interrupted leaves no charge' eventually uses_bytes "$me" 0

        # Of a file the region is there at once: interrupt it while it is being filled.
        for _ in $(seq 20); do
                env --default-signal=INT shmdctl --socket="$socket" put /half "$dir/big" >"$out" 2>"$err" &
                put=$!
                until [ "$(used_bytes "$me")" -gt 0 ] || ! kill -0 "$put" 2>/dev/null; do :; done
                kill -INT "$put" 2>/dev/null
                wait "$put"
                status=$?
                [ "$status" -ne 130 ] || break
                as "$me" shmdctl --socket="$socket" rm /half 2>/dev/null
                eventually uses_bytes "$me" 0
        done
        check 'put of a file is ended by SIGINT in the middle' [ "$status" -eq 130 ]
        check 'it leaves no name either' eval 'run_as "$me" stat /half; [ "$status" -eq 3 ]'
        check 'it leaves no charge either' eventually uses_bytes "$me" 0
}

# in_terminal COMMAND: runs it on a terminal, and has all that went there. Not under script(1), which may end before it
# has read the last of it.
in_terminal() {
        as "$me" "$python3" -I "$here/ctl-terminal.py" "$1" </dev/null >"$out" 2>"$err"
        status=$?
}

have_terminal() {
        as "$me" "$python3" -I "$here/ctl-terminal.py" true </dev/null >/dev/null 2>&1
}

test_progress() {
        if ! have_terminal; then
                skip 'the progress bar' 'there are no pseudo-terminals'
                return
        fi
        in_terminal "shmdctl --socket=$socket put /bar $dir/big"
        check 'put of a file draws a bar on a terminal' \
                eval '[ "$status" -eq 0 ] && tr "\r" "\n" <"$out" | grep -Eq "^/bar \[=*>? *\] +[0-9]+% [0-9.]+[KMG]?/1.0G [0-9.]+[KMG]?/s"'
        check 'the bar ends with all of it' eval 'tr "\r" "\n" <"$out" | grep -q "100% 1.0G/1.0G"'
        in_terminal "cat $dir/big | shmdctl --socket=$socket put /bar --replace"
        check 'put of a pipe shows how much has come' \
                eval '[ "$status" -eq 0 ] && tr "\r" "\n" <"$out" | grep -Eq "^/bar +[0-9.]+[KMG]? [0-9.]+[KMG]?/s"'
        in_terminal "shmdctl --socket=$socket cat /bar >/dev/null"
        check 'cat draws a bar when its output is elsewhere' eval 'tr "\r" "\n" <"$out" | grep -q "100% 1.0G/1.0G"'
        in_terminal "shmdctl --socket=$socket cat /bar --quiet >/dev/null"
        check '--quiet draws none' [ "$status" -eq 0 -a ! -s "$out" ]
        in_terminal "shmdctl --socket=$socket cat /bar 2>/dev/null | tail -c 1"
        check 'what is no terminal gets none' eval '[ "$status" -eq 0 ] && ! grep -q % "$out"'
        printf 'short' >"$dir/file"
        in_terminal "shmdctl --socket=$socket put /short $dir/file --quiet"
        in_terminal "shmdctl --socket=$socket cat /short >/dev/null"
        check 'a short copy draws none' [ "$status" -eq 0 -a ! -s "$out" ]
        in_terminal "stty cols 30; shmdctl --socket=$socket cat /bar >/dev/null"
        check 'a narrow terminal gets what fits' eval 'tr "\r" "\n" <"$out" | grep -q "100% 1.0G/1.0G"'
        as "$me" shmdctl --socket="$socket" rm /bar /short
        check 'all of it is given back' eventually uses_bytes "$me" 0
}

# -- regions that are written no more, names that end ----------------------------------------------

test_freeze() {
        printf 'for ever' >"$dir/file"
        expect 'create --freezable' 0 create /frozen 8 --freezable --mode=0644
        expect 'freeze' 0 freeze /frozen
        json 'stat says so' '"write" in d["seals"] and "seal" in d["seals"]' stat /frozen
        expect 'freeze once more is nothing' 0 freeze /frozen
        json 'freeze --json' 'd["path"] == "/frozen" and d["frozen"] == "immutable"' freeze /frozen
        expect 'freeze in the other way' 4 freeze --single-writer /frozen
        complains 'says why not' 'frozen'
        expect 'create --freezable, another' 0 create /single 8 --freezable
        json 'freeze --single-writer' 'd["frozen"] == "single-writer"' freeze --single-writer /single
        json 'is another seal' '"future-write" in d["seals"] and "seal" in d["seals"]' stat /single
        expect 'create without --freezable' 0 create /plain 8
        expect 'freeze of what is not freezable' 1 freeze /plain
        complains 'says so' 'not made freezable'
        expect 'freeze of nothing' 3 freeze /nothing
        expect 'freeze without a name' 2 freeze
        expect 'put --freeze' 0 put --freeze /put "$dir/file"
        json 'what was put is frozen' '"write" in d["seals"] and "seal" in d["seals"]' stat /put
        expect 'cat of it' 0 cat /put
        check 'and whole' cmp -s "$out" "$dir/file"
        expect 'put --freeze --replace from a pipe' 0 put --freeze --replace /put - <"$dir/file"
        expect 'cat of that' 0 cat /put
        check 'and whole as well' cmp -s "$out" "$dir/file"
        expect 'rm of all' 0 rm /frozen /single /plain /put
        check 'all of it is given back' eventually uses_bytes "$me" 0
}

is_missing() {
        as "$me" shmdctl --socket="$socket" stat "$1" >/dev/null 2>&1
        [ $? -eq 3 ]
}

test_ends() {
        expect 'create --ttl' 0 create /soon 4K --ttl=1h
        json 'stat tells what is left' '3590e9 < d["ttl_ns"] <= 3600e9' stat /soon
        expect 'stat in words' 0 stat /soon
        says 'as well' '^ *ends in +[0-9.]+(h|min)$'
        json 'and ls' '3590e9 < d[0]["ttl_ns"] <= 3600e9' ls /soon
        json 'expire never' 'd["path"] == "/soon" and d["ttl_ns"] is None' expire /soon never
        json 'takes it back' 'd["ttl_ns"] is None' stat /soon
        expect 'expire' 0 expire /soon 1ms
        check 'the name is gone' eventually is_missing /soon
        expect 'expire of what is gone' 3 expire /soon 1h
        expect 'expire of a directory' 1 expire / 1h
        expect 'expire needs a duration' 2 expire /soon later
        expect 'expire needs more than nothing' 2 expire /soon 0s
        expect 'expire needs two operands' 2 expire /soon
        printf 'x' >"$dir/file"
        expect 'put --ttl' 0 put /put "$dir/file" --ttl=50ms
        check 'ends' eventually is_missing /put
        expect 'create - --ttl makes no sense' 2 create - 4K --hold --ttl=1s
        expect 'create --lifetime=counted needs --hold' 2 create /counted 4K --lifetime=counted
        complains 'and says why' 'only holder'
        hold_as "$me" create /counted 4K --lifetime=counted
        json 'its lifetime is told' 'd["lifetime"] == "counted"' stat /counted
        release
        check 'it goes with its holder' eventually is_missing /counted
        check 'all of it is given back' eventually uses_bytes "$me" 0
}

# -- names -----------------------------------------------------------------------------------------

test_names() {
        expect 'mkdir makes a directory' 0 mkdir /dir
        expect 'mkdir of what is there fails' 1 mkdir /dir
        expect 'mkdir below what is not there' 3 mkdir /no/dir
        expect 'mkdir -p makes all of them' 0 mkdir -p /deep/er/est -m 0700
        expect 'mkdir -p of what is there' 0 mkdir -p /deep/er/est
        json 'mkdir -p gives the mode to the last' 'd["mode"] == "0700" and d["kind"] == "directory"' stat /deep/er/est
        json 'and the usual one to those above' 'd["mode"] == "0755" and d["entries"] == 1' stat /deep
        expect 'create /dir/region' 0 create /dir/region 12K --mode=0640
        expect 'mkdir -p through a region' 1 mkdir -p /dir/region/sub
        expect 'a path through a region is no path' 1 cat /dir/region/sub
        complains 'and the error says so' 'not a directory'
        expect 'cat of a directory fails' 1 cat /dir
        complains 'and says that it is one' 'is a directory'
        expect 'rm of a directory fails' 1 rm /dir
        expect 'rmdir of a region fails' 1 rmdir /dir/region
        expect 'rmdir of what is not empty fails' 1 rmdir /dir
        complains 'and says so' 'not empty'

        expect 'ls lists' 0 ls
        check 'ls prints one name a line, in byte order' [ "$(tr '\n' ' ' <"$out")" = 'deep dir ' ]
        expect 'ls -R has whole names, parents first' 0 ls -R
        check 'ls -R is all of it' [ "$(tr '\n' ' ' <"$out")" = '/deep /deep/er /deep/er/est /dir /dir/region ' ]
        expect 'ls -l' 0 ls -l /dir
        says 'ls -l has mode, owner, size, date and name' \
                '^-rw-r----- +[^ ]+ +[^ ]+ +12K +2[0-9]{3}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2} region$'
        expect 'ls -l --bytes' 0 ls -l --bytes /dir
        says 'ls -l --bytes is exact' ' 12288 '
        expect 'ls -l of directories' 0 ls -l
        says 'ls -l marks directories' '^drwxr-xr-x .* 1 .* dir$'
        expect 'ls of a region shows it' 0 ls /dir/region
        says 'by its name' '^region$'
        expect 'ls of nothing' 3 ls /nothing
        json 'ls --json is a list of nodes' \
                '[n["path"] for n in d] == ["/dir/region"] and d[0]["kind"] == "region" and d[0]["size"] == 12288' ls /dir
        json 'ls -R --json is the whole tree' 'len(d) == 5' ls -R
        expect 'ls of an empty directory' 0 ls /deep/er/est
        check 'prints nothing' [ ! -s "$out" ]
        json 'and in JSON an empty list' 'd == []' ls /deep/er/est

        expect 'chmod changes the mode' 0 chmod 0704 /dir/region /dir
        json 'of a region' 'd["mode"] == "0704"' stat /dir/region
        json 'and of a directory' 'd["mode"] == "0704"' stat /dir
        expect 'chmod with a sticky bit' 0 chmod 1777 /dir
        expect 'ls -l /' 0 ls -l /
        says 'ls -l shows the sticky bit' '^drwxrwxrwt .* dir$'
        expect 'a sticky region is refused' 1 chmod 1777 /dir/region

        expect 'names that are not ASCII' 0 create '/dir/größe 1' 1
        expect 'ls of them' 0 ls /dir
        says 'are printed as they are' '^größe 1$'
        json 'also in JSON' '"/dir/größe 1" in [n["path"] for n in d]' ls /dir
        if have_terminal; then
                in_terminal "LC_ALL=C shmdctl --socket=$socket ls /dir"
                check 'a terminal that has no UTF-8 gets ASCII' eval 'grep -q "gr.xc3.xb6.xc3.x9fe 1" "$out"'
        fi

        run_as "$me" rm /dir/none '/dir/größe 1' /dir/nothing
        check 'rm goes on after a failure, and its status is the first one'"'"'s' \
                [ "$status" -eq 3 -a "$(wc -l <"$err")" -eq 2 ]
        json 'rm --json says what was done' 'd == {"command": "rm", "done": ["/dir/region"]}' rm /dir/region
        json 'mkdir --json' 'd["done"] == ["/j"]' mkdir /j
        json 'chmod --json' 'd["done"] == ["/j"]' chmod 0700 /j
        json 'rmdir --json' 'd["done"] == ["/j", "/dir"]' rmdir /j /dir
        expect 'rmdir, deepest first' 0 rmdir /deep/er/est /deep/er /deep
        expect 'ls of an empty tree' 0 ls -R
        check 'is empty' [ ! -s "$out" ]
        expect 'rmdir of the root fails' 1 rmdir /

        # More than one page of an answer.
        mapfile -t many < <(seq -f '/many/a-long-name-so-that-few-of-them-fit-one-packet-%05g' 1200)
        expect 'mkdir /many' 0 mkdir /many
        expect '1,200 names' 0 mkdir "${many[@]}"
        expect 'ls goes through all pages' 0 ls /many
        check 'ls of many pages has every name once, in order' \
                cmp -s "$out" <(printf '%s\n' "${many[@]#/many/}" | LC_ALL=C sort)
        expect 'ls -R does too' 0 ls -R /many
        check 'ls -R of many pages has every name once' cmp -s "$out" <(printf '%s\n' "${many[@]}")
        json 'ls --json of many pages is one list' 'len(d) == 1200' ls /many
        expect 'rmdir of 1,200 names' 0 rmdir "${many[@]}" /many
}

test_move() {
        expect 'mkdir /m and /m/in' 0 mkdir /m /m/in
        expect 'create /m/a' 0 create /m/a 4K
        expect 'create /m/b' 0 create /m/b 8K
        expect 'mv gives a free name' 0 mv /m/a /m/c
        check 'mv says nothing' [ ! -s "$out" ]
        expect 'the old name is gone' 3 stat /m/a
        json 'the new one has the region' 'd["size"] == 4096 and d["names"] == 1' stat /m/c
        expect 'mv -n does not replace' 1 mv -n /m/c /m/b
        complains 'and says that the name is taken' '/m/b: .*taken'
        json 'nothing happened' 'd["size"] == 8192' stat /m/b
        json 'mv --exchange lets two change places' \
                'd == { "command": "mv", "from": "/m/c", "to": "/m/b" }' mv --exchange /m/c /m/b
        json 'the one is the other' 'd["size"] == 8192' stat /m/c
        json 'and the other the one' 'd["size"] == 4096' stat /m/b
        expect 'mv -x with nothing fails' 3 mv -x /m/c /m/none
        expect 'mv replaces' 0 mv /m/c /m/b
        json 'the name has the other region' 'd["size"] == 8192' stat /m/b
        expect 'the name it had is gone' 3 stat /m/c
        expect 'mv of nothing' 3 mv /m/none /m/x
        complains 'names what is missing' '^shmdctl: /m/none: '

        json 'mv into a directory' 'd["to"] == "/m/in/b"' mv /m/b /m/in
        json 'mv into the root' 'd["to"] == "/b"' mv /m/in/b /
        expect 'it is there' 0 stat /b
        expect 'mv -x takes a directory as it is' 0 mv -x /b /m/in
        json 'the directory is where the region was' 'd["kind"] == "directory"' stat /b
        expect 'mv of a directory' 0 mv /b /m/moved
        expect 'with all that is in it' 0 mv /m /n
        check 'is seen by ls -R' eval '[ "$(shmdctl --socket="$socket" ls -R /n | tr "\n" " ")" = "/n/in /n/moved " ]'
        expect 'a directory does not go below itself' 1 mv /n /n/moved
        complains 'and the error says so' 'below itself'
        expect 'a region does not replace a directory' 0 mkdir /n/moved/in
        expect 'not even an empty one' 1 mv /n/in /n/moved
        complains 'and the error says what it is' 'is a directory'

        json 'ln gives one more name' 'd == { "command": "ln", "from": "/n/in", "to": "/n/also" }' ln /n/in /n/also
        json 'the region knows how many it has' 'd["names"] == 2 and d["size"] == 8192' stat /n/also
        expect 'stat shows it' 0 stat /n/in
        says 'as a number' '^ *names  *2$'
        expect 'ln to what is taken' 1 ln /n/in /n/also
        expect 'ln of a directory' 1 ln /n/moved /n/x
        expect 'ln of nothing' 3 ln /n/none /n/x
        expect 'ln into a directory that has the name' 1 ln /n/in /n/moved
        expect 'rmdir makes room' 0 rmdir /n/moved/in
        expect 'ln into a directory' 0 ln /n/in /n/moved
        expect 'rm of two of three' 0 rm /n/in /n/moved/in
        json 'leaves the region' 'd["names"] == 1 and d["size"] == 8192' stat /n/also
        expect 'rm of the last' 0 rm /n/also
        expect 'rmdir of all' 0 rmdir /n/moved /n
        check 'and its memory is given back' eventually uses_bytes "$me" 0
}

test_wait() {
        local waiter

        again="$socket: deadline passed" expect 'wait for what never comes is a deadline' 124 wait /never --timeout=200ms
        complains 'and says so' '^shmdctl: /never: deadline passed'
        json_error 'and as JSON' 124 'd["errno"] == "ETIMEDOUT"' wait /never --timeout=200ms
        as "$me" shmdctl --socket="$socket" wait /later --timeout=60s >"$dir/waited" 2>"$err" &
        waiter=$!
        check 'the broker knows of the waiter' eventually eval \
                '[ "$(as "$me" shmdctl --socket="$socket" stats --json | field "d[\"waiters\"]")" -eq 1 ]'
        expect 'create /later' 0 create /later 64K
        wait "$waiter"
        check 'wait ends when the name comes' [ $? -eq 0 ]
        check 'wait says what it is' grep -Eq '^/later: region [0-9]+, 64K$' "$dir/waited"
        json 'wait for what is there ends at once' 'd["path"] == "/later" and d["size"] == 65536' wait /later

        expect 'wait --unheld and --frozen exclude each other' 2 wait --unheld --frozen /later
        json 'wait --unheld ends at once where nobody holds it' 'd["path"] == "/later"' wait --unheld /later
        expect 'wait --frozen has its deadline' 124 wait --frozen /later --timeout=200ms
        expect 'rm /later' 0 rm /later
        check 'somebody holds it' hold_as "$me" create /grip 4K
        expect 'wait --unheld has its deadline' 124 wait --unheld /grip --timeout=200ms
        as "$me" shmdctl --socket="$socket" wait --unheld /grip --timeout=60s >"$dir/waited" 2>"$err" &
        waiter=$!
        check 'the broker knows of who waits for it' eventually eval \
                '[ "$(as "$me" shmdctl --socket="$socket" stats --json | field "d[\"waiters\"]")" -eq 1 ]'
        release
        wait "$waiter"
        check 'wait --unheld ends when its last holder does' [ $? -eq 0 ]
        check 'wait --unheld says so' grep -Eq '^/grip: region [0-9]+, 4.0K, held by nobody$' "$dir/waited"
        expect 'and it is still there' 0 rm /grip
}

test_watch() {
        local watcher

        expect 'watch of no event is an error' 2 watch --events=created,sunset
        complains 'and says which' 'no event "sunset"'
        expect 'watch of a name that is not there' 3 watch /none
        expect 'watch has its deadline' 124 watch --count=1 --timeout=200ms
        again='deadline passed' expect 'and without a count ends well' 0 watch --timeout=200ms
        expect 'mkdir /w' 0 mkdir -m 0755 /w
        expect 'create /w/old' 0 create /w/old 4K
        as "$me" shmdctl --socket="$socket" watch --list --count=6 /w >"$dir/watched" 2>"$err" &
        watcher=$!
        check 'watch --list begins with what is there' eventually grep -qx 'exists /w/old' "$dir/watched"
        expect 'create /w/new' 0 create /w/new 4K
        expect 'mv /w/new' 0 mv /w/new /w/newer
        expect 'mv --exchange' 0 mv --exchange /w/newer /w/old
        expect 'chmod /w/old' 0 chmod 0640 /w/old
        expect 'rm both' 0 rm /w/old /w/newer
        wait "$watcher"
        check 'watch ends after --count events' [ $? -eq 0 ]
        printf '%s\n' 'exists /w/old' 'created /w/new' 'renamed /w/new -> /w/newer' 'renamed /w/newer <-> /w/old' \
                'changed /w/old' 'removed /w/old' 'removed /w/newer' >"$dir/expected"
        check 'watch prints each event once and in order' diff -u "$dir/expected" "$dir/watched"

        as "$me" shmdctl --socket="$socket" watch --json --list --events=created,holders /w >"$dir/watched" 2>"$err" &
        watcher=$!
        check 'the broker knows of the watch' eventually eval \
                '[ "$(as "$me" shmdctl --socket="$socket" df --json | field "d[\"slots\"][\"watches\"][\"used\"]")" -eq 1 ]'
        expect 'create again' 0 create /w/again 4K
        check 'somebody holds it' hold_as "$me" create --open /w/again 4K
        check 'watch --json says who holds it' eventually grep -q '"event": "holders".*"held": true' "$dir/watched"
        release
        check 'and that nobody does' eventually grep -q '"event": "holders".*"held": false' "$dir/watched"
        expect 'rm /w/again' 0 rm /w/again
        expect 'rmdir /w' 0 rmdir /w
        wait "$watcher"
        check 'watch ends when what is watched is gone' [ $? -eq 0 ]
        check 'each line is JSON' lines_are_json "$dir/watched"
}

lines_are_json() {
        "$python3" -I -c 'import json, sys
events = [json.loads(line) for line in open(sys.argv[1])]
assert [e["event"] for e in events][0] == "created" and events[-1]["event"] == "removed", events
assert all(e["sequence"] > 0 and e["path"] for e in events)' "$1"
}

# -- figures ------------------------------------------------------------------------------------------

metrics_are_valid() {
        as "$1" shmdctl --socket="$socket" metrics >"$out" 2>"$err" && "$python3" -I "$here/ctl-openmetrics.py" <"$out" 2>>"$err"
}

test_figures() {
        expect 'create /counted' 0 create /counted 64K
        expect 'df' 0 df
        says 'df has titles' '^USER +SLOT +LIMIT +USED +LEFT +USE%$'
        says 'df counts bytes' ' bytes +4.0G +64K +4.0G +1%$'
        says 'df counts regions' ' regions +4096 +1 +4095 +1%$'
        expect 'df --bytes' 0 df --bytes
        says 'df --bytes is exact' ' bytes +4294967296 +65536 +4294901760 +1%$'
        json 'df --json is exact' \
                'd["slots"]["bytes"] == {"limit": 4294967296, "used": 65536, "left": 4294901760} and d["uid"] == '"$me" df
        json 'df --total' 'd["slots"]["bytes"]["used"] == 65536 and "uid" not in d' df --total
        expect 'df --directory' 0 df --directory=/
        expect 'df of no directory' 3 df --directory=/none

        expect 'stats' 0 stats
        says 'stats has the regions' '^ *regions 1$'
        says 'stats has the requests' '^create +[0-9]+ +[0-9]+ +[0-9.]+[num]?s'
        says 'stats has the refusals' '^missing +[0-9]+$'
        json 'stats --json agrees' \
                'd["regions"] == 1 and d["bytes"] == 65536 and d["refusals"]["missing"] > 0 and any(r["name"] == "ping" and r["count"] == sum(r["buckets"]) > 0 for r in d["requests"])' stats

        check 'the checker of OpenMetrics text finds every mistake' "$python3" -I "$here/ctl-openmetrics.py" --test
        check 'metrics is OpenMetrics text' metrics_are_valid "$me"
        says 'metrics has the regions' '^shmd_regions\{state="named"\} 1$'
        says 'metrics has the bytes' '^shmd_charged_bytes 65536$'
        says 'metrics has refusals by reason' '^shmd_refusals_total\{reason="missing"\} [1-9]'
        says 'metrics has latencies by request' '^shmd_request_duration_seconds_bucket\{request="ping",le="1.024e-06"\} '
        says 'metrics has accounts' "^shmd_account_used_bytes\\{uid=\"$me\"\\} 65536\$"
        says 'metrics has the total' '^shmd_total_limit_bytes 68719476736$'
        says 'metrics ends' '^# EOF$'
        json 'metrics --json has the same families' \
                'any(f["name"] == "shmd_refusals" and f["type"] == "counter" and f["samples"] for f in d)' metrics
        expect 'rm /counted' 0 rm /counted
}

# -- who has it ----------------------------------------------------------------------------------------

# The path in /proc of the descriptor through which process $1 has a region, all of it, or its number.
region_fd() {
        local fd

        for fd in /proc/"$1"/fd/*; do
                case $(readlink "$fd") in */memfd:* | memfd:*) echo "$fd" ;; esac
        done
}

# keep HOW PID: has the region of that process as well, until killed: "same", the very same
# description, as one that was passed on; "other", one of its own. Leaves $keeper.
keep() {
        rm -f "$dir/kept"
        "$python3" -I -c '
import ctypes, os, sys, time
how, pid, path = sys.argv[1], int(sys.argv[2]), sys.argv[3]
if how == "same":
    fd = ctypes.CDLL(None, use_errno=True).syscall(438, os.pidfd_open(pid), int(os.path.basename(path)), 0)
else:
    fd = os.open(path, os.O_RDONLY)
sys.exit(1) if fd < 0 else print("kept", flush=True)
time.sleep(600)' "$1" "$2" "$(region_fd "$2")" >"$dir/kept" 2>"$err" &
        keeper=$!
        eventually grep -q kept "$dir/kept"
}

let_go() {
        kill -KILL "$keeper"
        wait "$keeper" 2>/dev/null
}

test_holders() {
        expect 'holders of a region nobody holds' 3 holders /who
        check 'a region is held' hold_as "$me" create /who 64K
        expect 'holders' 0 holders /who
        says 'lists who holds it' "^ *[0-9]+ +[^ ]+ +$held +read-write +[0-9.]+[num]?[a-z]+ +(yes|no) +yes +no +(shmdctl|-) "
        says 'and says what is not known' '^unexplained holders: unknown: '
        json 'holders --json' \
                'd["path"] == "/who" and d["held"] in (True, None) and len(d["holders"]) == 1 and d["holders"][0]["pid"] == '"$held"' and d["more_holders"] == 0 and d["explained"] in ("grants", "unknown") and d["unexplained"] is None' \
                holders /who
        json 'its process is recognised, or nothing is said of it' \
                '(lambda h: h["process"] == "there" and h["command"] == "shmdctl" or h["process"] == "unknown" and h["command"] is None)(d["holders"][0])' \
                holders /who
        run_as "$me" --json stat /who
        json 'by number it is the same' 'd["path"] == "/who" and len(d["holders"]) == 1' \
                holders --id="$(field 'd["region"]' <"$out")"
        expect 'nobody holds a directory' 1 holders /
        complains 'and the error says so' 'nobody holds a directory'

        if keep same "$held"; then
                release
                json 'who passed it on is gone, and the grant is not' \
                        'd["held"] and len(d["holders"]) == 1 and not d["holders"][0]["connected"] and d["holders"][0]["process"] in ("gone", "unknown")' \
                        holders /who
                expect 'in the table as well' 0 holders /who
                says 'it is gone' ' +no +no +(\(gone\)|-) +-$'
                let_go
        else
                skip 'a grant that was passed on' 'descriptors of other processes cannot be had here'
                release
        fi
        json 'nobody holds it in the end' \
                'd["held"] in (False, None) and d["holders"] == [] and d["unexplained"] in (False, None)' holders /who
        expect 'in words' 0 holders /who
        says 'none' '^unexplained holders: (none: nobody holds it|unknown: .*)$'

        check 'it is held again' hold_as "$me" create /who 64K --open
        if keep other "$held"; then
                release
                json 'a holder without a grant is told of when no grant lives' \
                        'd["held"] in (True, None) and d["holders"] == [] and d["unexplained"] in (True, None)' holders /who
                expect 'in words' 0 holders /who
                says 'yes' '^unexplained holders: (yes: it is held, and no grant of it lives|unknown: .*)$'
                let_go
        else
                skip 'a holder without a grant' 'regions of other processes cannot be opened here'
                release
        fi
        expect 'rm /who' 0 rm /who
}

test_pages() {
        local widest

        head -c 65536 /dev/urandom >"$dir/file"
        expect 'put /pages' 0 put /pages "$dir/file"
        expect 'ln /pages' 0 ln /pages /pages-too
        expect 'stat shows what is allocated' 0 stat /pages
        says 'in its own line' '^ *allocated 64K$'
        says 'and the other names' '^ *also /pages-too$'
        json 'stat --json has all names' 'd["paths"] == ["/pages", "/pages-too"] and d["allocated"] == 65536 and "pages" not in d' \
                stat /pages
        json 'stat opens nothing' 'd["granted"] == 1' stat /pages
        json 'stat --pages tells memory from swap' \
                'd["pages"]["resident"] + d["pages"]["swapped"] == 65536 and d["pages"]["hole"] == d["pages"]["never_written"] == d["pages"]["unknown"] == 0' \
                stat --pages /pages
        expect 'stat --pages in words' 0 stat -p /pages
        says 'has what is resident' '^ *resident '
        says 'and what is swapped' '^ *swapped '
        json 'stat --pages opens it once' 'd["granted"] == 3' stat /pages
        expect 'stat --pages of a directory has none' 0 stat --pages /

        check 'a region is held' hold_as "$me" create /sparse 40K
        "$python3" -I -c 'import sys
with open(sys.argv[1], "r+b", 0) as f:
    f.seek(8192)
    f.write(b"x" * 8192)' "$(region_fd "$held")" 2>"$err"
        as "$me" env LC_ALL=C shmdctl --socket="$socket" map /sparse >"$out" 2>"$err"
        check 'map draws' [ $? -eq 0 ]
        says 'with a title' '^/sparse: region [0-9]+, 40K, 1 page a sign \(4.0K\)$'
        says 'pages and holes' '^     0 \.\.(##|ss|sm|ms)\.{6}$'
        says 'with totals' '^resident .*, swapped .*, holes 32K$'
        says 'and a legend' '^# resident .* s swapped .*hole$'
        expect 'map in UTF-8' 0 map /sparse
        says 'draws in blocks' '^     0 ··(██|.*)·{6}$'
        check 'what is no terminal gets no colours' eval '! grep -q "$(printf "\033")" "$out"'
        json 'map --json has runs' \
                '[(r["offset"], r["length"]) for r in d["runs"] if r["state"] == "hole"] == [(0, 8192), (16384, 24576)] and sum(r["length"] for r in d["runs"]) == 40960 and d["resident"] + d["swapped"] == 8192 and d["path"] == "/sparse"' \
                map /sparse
        json 'looking has allocated nothing' 'd["allocated"] == 8192' stat /sparse
        release
        expect 'create /large' 0 create /large 1G
        expect 'map of a large region' 0 map /large
        says 'has many pages a sign' '^/large: region [0-9]+, 1.0G, [0-9]+ pages a sign \('
        if have_terminal; then
                in_terminal "stty cols 40 rows 12; TERM=xterm shmdctl --socket=$socket map /large"
                widest=$(sed 's/\x1b\[[0-9;]*m//g; s/\r//g' <"$out" | grep -E '^ +[0-9]' | wc -L)
                check 'map fits its terminal' [ "$widest" -gt 20 -a "$widest" -le 40 ]
                check 'and uses its colours' grep -q "$(printf '\033')\[2m" "$out"
                in_terminal "NO_COLOR=1 shmdctl --socket=$socket map /large"
                check 'unless they are not wanted' eval '! grep -q "$(printf "\033")" "$out"'
        else
                skip 'map on a terminal' 'there are no pseudo-terminals'
        fi
        expect 'create /empty' 0 create /empty 0
        expect 'map of an empty region' 0 map /empty
        says 'has nothing to draw' '^resident 0, swapped 0, holes 0$'
        json 'and no runs' 'd["runs"] == [] and d["size"] == 0' map /empty
        expect 'map of nothing' 3 map /none
        expect 'map of a directory' 1 map /
        expect 'rm of them' 0 rm /pages /pages-too /sparse /large /empty
        check 'all is given back' eventually uses_bytes "$me" 0
}

test_top() {
        local scenario

        expect 'create /top-a' 0 create /top-a 64K
        head -c 16384 /dev/urandom | as "$me" shmdctl --socket="$socket" put /top-b - --quiet
        expect 'ln /top-b' 0 ln /top-b /top-c
        check 'a region is held' hold_as "$me" create /top-d 4K --open
        "$python3" -I -c 'import sys
with open(sys.argv[1], "r+b", 0) as f: f.write(b"x")' "$(region_fd "$held")"
        json 'top --json has accounts and regions' \
                'len(d["regions"]) == 3 and [a["uid"] for a in d["accounts"]].count('"$me"') == 1 and d["total"]["regions"] >= 3' \
                top -d 100ms
        json 'a region with two names is there once, with its memory' \
                '[(r["path"], r["size"], r["allocated"]) for r in d["regions"]] == [("/top-b", 16384, 16384), ("/top-d", 4096, 4096), ("/top-a", 65536, 0)]' \
                top -d 100ms --sort=allocated
        json 'rates come from two looks' 'all(r["grants_per_second"] == 0 for r in d["regions"])' top -d 100ms
        json 'top sorts' '[r["size"] for r in d["regions"]] == [4096, 16384, 65536]' top -d 100ms -s size -r
        expect 'rm /top-d' 0 rm /top-d
        json 'what has lost its name is still there' \
                '[(r["path"], r["grants"]) for r in d["regions"] if r["size"] == 4096] == [(None, 1)]' top -d 100ms
        release
        expect 'top, where output is no terminal, is plain text' 0 top -d 100ms --bytes
        says 'with a line for all' '^shmd [0-9.]+, up .*, 2 regions, 0 of them without a name, [0-9]+ peers$'
        says 'for accounts' '^[^ ]+ +81920 +4294967296 +3 +[0-9]+ +0\.0 +[0-9]+$'
        says 'for regions' '^ *[0-9]+ [^ ]+ +65536 +0 +[0-9]+ +0\.0 /top-a$'
        check 'and nothing else' eval '! grep -q "$(printf "\033")" "$out"'
        expect 'top -n 2 prints two' 0 top -d 100ms -n 2
        check 'tables' [ "$(grep -c '^shmd ' "$out")" -eq 2 ]

        if ! have_terminal; then
                skip 'top on a terminal' 'there are no pseudo-terminals'
                return
        fi
        expect 'rm /top-a' 0 rm /top-a
        check 'a region is held' hold_as "$me" create /top-a 64K
        "$python3" -I -c 'import sys
with open(sys.argv[1], "r+b", 0) as f: f.write(b"x" * 8192)' "$(region_fd "$held")"
        for scenario in shows sorts resizes stops; do
                check "top on a terminal $scenario" as "$me" env LC_ALL=C "$python3" -I "$here/ctl-screen.py" "$scenario" \
                        shmdctl --socket="$socket" top -d 100ms 2>"$err"
        done
        check 'top -n 3 on a terminal ends by itself' as "$me" "$python3" -I "$here/ctl-screen.py" ends \
                shmdctl --socket="$socket" top -d 100ms -n 3 2>"$err"
        in_terminal "TERM=dumb shmdctl --socket=$socket top -d 100ms"
        check 'a dumb terminal gets plain text' eval '[ "$status" -eq 0 ] && ! grep -q "$(printf "\033")" "$out"'
        in_terminal "TERM=xterm shmdctl --socket=$socket top -d 100ms --once"
        check 'and so does --once' eval '[ "$status" -eq 0 ] && ! grep -q "$(printf "\033")" "$out"'
        release
        expect 'rm of them' 0 rm /top-a /top-b /top-c
        check 'all is given back' eventually uses_bytes "$me" 0
}

test_doctor() {
        run_as "$me" doctor
        check 'doctor fails only where there is a problem' \
                eval 'if grep -q "^problem " "$out"; then [ "$status" -eq 1 ]; else [ "$status" -eq 0 ]; fi'
        says 'doctor finds the broker' '^ok +broker +version [0-9.]+ answers, as uid [0-9]+$'
        says 'and its socket' "^[a-z]+ +socket +.*$socket"
        says 'and what its kernel has' '^[a-z]+ +lease +(this kernel has it|missing: .*)$'
        says 'and looks for udmabuf' '^[a-z]+ +udmabuf '
        says 'and counts' '^[0-9]+ ok, [0-9]+ warnings, [0-9]+ problems$'
        run_as "$me" doctor --json
        check 'doctor --json has the same' python \
                'd["ok"] + d["warnings"] + d["problems"] == len(d["checks"]) > 10 and all((c["level"] == "ok") == (c["advice"] is None) for c in d["checks"]) and d["broker"]' "$out"
        run_as "$me" doctor --quiet
        check 'doctor --quiet leaves out what is fine' eval '! grep -Eq "^ok |, [0-9]+ warnings" "$out"'
        run_as "$me" doctor --strict
        check 'doctor --strict fails for warnings too' \
                eval 'if grep -Eq "^(problem|warning) " "$out"; then [ "$status" -eq 1 ]; else [ "$status" -eq 0 ]; fi'
        as "$me" shmdctl --socket="$dir/none" doctor --json >"$out" 2>"$err"
        check 'without a broker that is the problem' [ $? -eq 1 ]
        check 'and the machine is looked at all the same' python \
                'd["broker"] is None and [c["check"] for c in d["checks"] if c["level"] == "problem"][0] == "broker" and any(c["check"] == "udmabuf" for c in d["checks"])' "$out"
}

# -- policies -----------------------------------------------------------------------------------------

test_reload() {
        local policies=$dir/run/shmd/policy.d

        export SHMD_DAEMON=$build/shmd
        mkdir -p "$policies"
        if [ "$me" -ne 0 ]; then
                expect 'reload is for administrators' 4 reload --policy-root="$dir"
                skip 'reload' 'it takes root'
                return
        fi
        printf '[account]\nregions = 4000\n[directory /policy]\nmode = 1777\nbytes = 1M\n' >"$policies/10.conf"
        expect 'reload' 0 reload --policy-root="$dir"
        says 'it says what it did' '^policy 2 is in force: 1 directory made, limits of 1 account changed$'
        expect 'df' 0 df
        says 'the limit is the policy'"'"'s' ' regions +4000 '
        expect 'df --rules' 0 df --rules
        says 'which is the rule' ' regions +4000 .* policy \[account\]$'
        says 'for what it names' ' bytes .* shmd.conf \[account\]$'
        json 'in JSON too' 'd["slots"]["regions"]["rule"] == "policy [account]" and "rule" in d["slots"]["peers"]' df --rules
        expect 'df --rules of a directory' 2 df --rules --directory=/policy
        expect 'df of the directory' 0 df --bytes --directory=/policy
        says 'has its limit' '^bytes +1048576 +0 +1048576 '
        json 'reload --json' 'd == {"generation": 3, "directories": 0, "accounts": 0}' reload --policy-root="$dir"
        expect 'reload --quiet' 0 reload --quiet --daemon="$build/shmd" --policy-root="$dir"
        check 'says nothing' [ ! -s "$out" ]

        printf '# nothing\n[account]\nregions = many\n' >"$policies/20.conf"
        expect 'a mistake' 1 reload --policy-root="$dir"
        complains 'has file and line' "policy.d/20.conf:3: regions=many: must be a number"
        json_error 'in JSON too' 1 '"policy.d/20.conf:3: " in d["sentence"]' reload --policy-root="$dir"
        expect 'df' 0 df
        says 'and the limit is the one before' ' regions +4000 '
        ln -sf /dev/null "$policies/20.conf"
        expect 'a link to /dev/null is nothing' 0 reload --policy-root="$dir"

        check 'a policy can be compiled before' "$build/shmd" --compile-policy --policy-root "$dir" -o "$dir/tmp/policy"
        expect 'and put in force' 0 reload "$dir/tmp/policy"
        chmod 0644 "$dir/tmp/policy"
        head -c 100 "$dir/tmp/policy" >"$dir/tmp/cut"
        expect 'half of one is none' 1 reload "$dir/tmp/cut"
        complains 'and the broker says why' 'the compiled policy is not valid: it is not as long as it says'
        expect 'nor is an empty one' 1 reload /dev/null
        expect 'or one that does not exist' 1 reload "$dir/tmp/none"
        expect 'without the compiler there is none' 1 reload --daemon=/nonexistent/shmd
        complains 'and it says so' '/nonexistent/shmd: No such file'
        expect_as "$alice" 'reload is for administrators' 4 reload "$dir/tmp/policy"

        rm -r "$dir/run/shmd"
        expect 'without any file' 0 reload --policy-root="$dir"
        expect 'df' 0 df
        says 'the limit is the configuration'"'"'s' ' regions +4096 '
        expect 'rmdir of what it made' 0 rmdir /policy
}

# -- the state ---------------------------------------------------------------------------------------

test_state() {
        export SHMD_DAEMON=$build/shmd
        if [ "$me" -ne 0 ]; then
                expect 'state is for administrators' 4 state
                skip 'state' 'it takes root'
                return
        fi
        expect 'mkdir to look for' 0 mkdir /state
        expect 'a region to look for' 0 create /state/region 12k
        expect 'state' 0 state
        says 'it says what is there' ' regions$'
        says 'and that it fits' '^ *0 mistakes$'
        json 'state --json' 'd["valid"] and d["mistakes"] == [] and d["version"] == 1 and d["regions"] >= 1 and d["directories"] >= 2 and d["bytes"] >= 12288' state
        expect 'state --quiet' 0 state --quiet
        check 'says nothing' [ ! -s "$out" ]
        expect_as "$alice" 'state is for administrators' 4 state

        expect 'state --dump' 0 state --dump="$dir/tmp/state"
        check 'says nothing' [ ! -s "$out" ]
        check 'and is for nobody else to read' [ "$(stat -c %a "$dir/tmp/state")" = 600 ]
        expect 'state --check' 0 state --check="$dir/tmp/state" --socket=/nonexistent
        says 'says what is there' ' regions$'
        check 'shmd --check-state as well' "$build/shmd" --check-state "$dir/tmp/state"
        expect 'to standard output' 0 state --dump=-
        check 'it goes too' cmp -s -n 72 "$out" "$dir/tmp/state"
        expect 'from standard input' 0 state --check=- <"$dir/tmp/state"

        head -c 600000 "$dir/tmp/state" >"$dir/tmp/cut"
        expect 'half of one is none' 1 state --check="$dir/tmp/cut"
        complains 'and it says why' 'cut: not valid: it is shorter than its header says$'
        json_error 'in JSON too' 1 'd["sentence"] == "it is shorter than its header says"' state --check="$dir/tmp/cut"
        expect 'nor is an empty one' 1 state --check=/dev/null
        expect 'or one that does not exist' 1 state --check="$dir/tmp/none"
        expect 'a folder cannot be written to' 1 state --dump="$dir/tmp"
        expect 'without the program there is no check' 1 state --daemon=/nonexistent/shmd
        complains 'and it says so' '/nonexistent/shmd: No such file'
        expect '--dump and --check' 2 state --dump="$dir/tmp/a" --check="$dir/tmp/state"
        expect 'an operand' 2 state file
        expect 'rm of what was looked for' 0 rm /state/region
        expect 'rmdir of it' 0 rmdir /state
}

# -- other users -------------------------------------------------------------------------------------

# With a keeper: tests/integration/keeper.
test_upgrade() {
        if [ "$me" -ne 0 ]; then
                expect 'upgrade is for administrators' 4 upgrade
                return
        fi
        expect 'without a keeper there is no upgrade' 1 upgrade
        complains 'and the broker says so' 'the broker has no keeper'
        json_error 'in JSON too' 1 'd["reason"] == "keeper"' upgrade
        expect 'it takes no names' 2 upgrade /name
        expect 'nothing is done if the program was not replaced' 0 upgrade --if-replaced="$broker"
        expect 'a process that there is not has no program' 1 upgrade --if-replaced=2147483647
        expect 'nor is a number beyond all of them one' 2 upgrade --if-replaced=2147483648
        expect 'or a word' 2 upgrade --if-replaced=keeper
}

test_tickets() {
        local id

        expect 'a region to hand out' 0 put /handed "$source/LICENSE" --mode=0
        expect 'ticket prints a ticket' 0 ticket /handed --uses=3
        says 'and nothing else' '^shmdt_[A-Za-z0-9_-]{43}$'
        check 'in one line' [ "$(wc -l <"$out")" -eq 1 ]
        cp "$out" "$dir/tmp/ticket"
        check 'redeem writes the region' eval 'shmdctl --socket="$socket" redeem "$dir/tmp/ticket" | cmp -s - "$source/LICENSE"'
        check 'it reads standard input' eval 'shmdctl --socket="$socket" redeem <"$dir/tmp/ticket" | cmp -s - "$source/LICENSE"'
        check 'and finds the ticket between spaces' eval 'printf " \n%s \r\n" "$(cat "$dir/tmp/ticket")" | shmdctl --socket="$socket" redeem - | cmp -s - "$source/LICENSE"'
        expect 'a ticket that is used up is denied' 4 redeem "$dir/tmp/ticket"
        complains 'without a reason' '^shmdctl: ticket: permission denied: this ticket is good for nothing$'
        expect 'so is an empty one' 4 redeem /dev/null
        expect 'a ticket is no argument' 1 redeem "$(cat "$dir/tmp/ticket")"
        json 'ticket is JSON on request' 'len(d["ticket"]) == 49 and d["id"] > 0 and d["ttl_ns"] == 60000000000' \
                ticket /handed --write --ttl=1min --user=0
        json 'tickets lists it' 'len(d) == 1 and d[0]["rights"] == "read-write" and d[0]["uses_left"] == 1 and d[0]["uid"] == 0 and 0 < d[0]["ttl_ns"] <= 60000000000' \
                tickets /handed
        expect 'tickets is a table' 0 tickets /handed
        says 'with a line for each' '^ *[0-9]+ +read-write +1 +[0-9.a-z]+ +root'
        expect 'revoke ends one' 0 revoke "$(shmdctl --socket="$socket" tickets /handed --json | field 'd[0]["id"]')"
        says 'and says so' '^revoked 1 ticket$'
        expect 'then there is none' 0 tickets /handed
        check 'and no table' [ ! -s "$out" ]
        shmdctl --socket="$socket" ticket /handed >"$dir/tmp/ticket"
        check 'revoke - reads the ticket' eval 'shmdctl --socket="$socket" revoke - <"$dir/tmp/ticket" >/dev/null'
        shmdctl --socket="$socket" ticket /handed >"$dir/tmp/ticket"
        shmdctl --socket="$socket" ticket /handed >"$dir/tmp/ticket"
        json 'revoke --all ends those of a region' 'd["revoked"] == 2' revoke --all /handed
        expect 'a number that is no ticket is not found' 3 revoke 999999
        expect 'nor is a region that does not exist' 3 ticket /nobody
        expect 'uses are bounded' 2 ticket /handed --uses=65537
        expect 'none is too few' 1 ticket /handed --uses=0
        expect 'a time of nothing is no time' 2 ticket /handed --ttl=0
        expect 'a name or a number' 2 ticket
        expect 'not both' 2 ticket /handed --id=1
        expect '--id goes with --all' 2 revoke --id=1
        check 'a region without a name is held' hold_as "$me" create - 4K
        id=$(sed -n 's/.*region \([0-9]*\),.*/\1/p' "$out")
        json 'it has a ticket by its number' 'd["ticket"]' ticket --id="$id"
        release
        expect 'rm /handed' 0 rm /handed
}

test_bell() {
        expect 'a region with a doorbell' 0 create /bell 4K
        expect 'bell ring rings it' 0 bell ring /bell
        says 'and prints the counter' '^1$'
        json 'three times' 'd["count"] == 4' bell ring /bell --count=3
        json 'stat knows its page' 'd["doorbell"] > d["region"]' stat /bell
        expect 'so does stat in words' 0 stat /bell
        says 'by its number' '^ *doorbell [0-9]+$'
        expect 'bell wait has a deadline' 124 bell wait /bell --timeout=100ms
        : >"$dir/waited"
        shmdctl --socket="$socket" bell wait /bell --count=2 --timeout=60s >"$dir/waited" 2>&1 &
        held=$!
        eventually eval '! kill -0 "$held" 2>/dev/null || { shmdctl --socket="$socket" bell ring /bell >/dev/null; test -s "$dir/waited"; }'
        wait "$held"
        check 'bell wait ends when it has rung so often' [ $? -eq 0 ]
        expect 'what is there to do with a bell' 2 bell
        expect 'ring or wait' 2 bell silence /bell
        expect 'a name' 2 bell ring
        expect 'a bell of a region that does not exist' 3 bell wait /nobody
        expect 'rm /bell' 0 rm /bell
}

test_users() {
        if [ "$(id -u)" -ne 0 ]; then
                skip 'what needs several users' 'only root can be several users'
                return
        fi
        head -c 100000 /dev/urandom >"$dir/tmp/file"
        chmod 0644 "$dir/tmp/file"

        expect_as "$alice" 'alice makes a region' 0 put /alice "$dir/tmp/file"
        expect_as "$bob" 'bob may not read it' 4 cat /alice
        complains 'the refusal says so' '^shmdctl: /alice: permission denied: .'
        json_error_as "$bob" 'the refusal is JSON on request' 4 \
                'd["errno"] == "EACCES" and d["exit"] == 4 and d["reason"] == "region-read" and d["thing"] == "/alice" and d["sentence"]' cat /alice
        expect_as "$bob" 'bob may not remove it' 4 rm /alice
        expect_as "$bob" 'bob may not see who holds it' 4 holders /alice
        expect_as "$bob" 'bob may not see its pages' 4 map /alice
        expect_as "$bob" 'nor count them' 4 stat --pages /alice
        expect_as "$bob" 'bob may see what it costs' 0 stat /alice
        expect_as "$bob" 'bob may not move it' 4 mv /alice /bobs
        expect_as "$bob" 'bob may not give it one more name' 4 ln /alice /bobs
        complains 'the refusal says who may' 'owner'
        expect_as "$bob" 'bob may not change its mode' 4 chmod 0666 /alice
        expect_as "$alice" 'alice lets him in' 0 chmod 0644 /alice
        json_as "$bob" 'now he sees its pages' \
                'd["pages"]["resident"] + d["pages"]["swapped"] == 102400 and d["pages"]["unknown"] == 0' stat --pages /alice
        check 'bob reads it' cmp -s <(as "$bob" shmdctl --socket="$socket" cat /alice) "$dir/tmp/file"
        expect_as "$bob" 'a directory that bob may not write to' 0 ls /
        expect_as "$alice" 'alice makes a directory' 0 mkdir /private -m 0700
        expect_as "$bob" 'bob may not look into it' 4 ls /private
        expect_as "$bob" 'bob learns nothing of names in it' 4 stat /private/x
        expect_as "$alice" 'alice may not give it away' 4 chown "$bob" /alice
        expect 'root gives it to bob' 0 chown "$bob:$bob" /alice
        json 'it is his' 'd["uid"] == '"$bob"' and d["gid"] == '"$bob" stat /alice
        json 'it is on his account' 'd["slots"]["bytes"]["used"] == 102400' df --user="$bob"
        expect 'chown :GROUP' 0 chown ":$alice" /alice
        json 'changes the group alone' 'd["uid"] == '"$bob"' and d["gid"] == '"$alice" stat /alice
        expect_as "$bob" 'bob removes it' 0 rm /alice
        expect_as "$alice" 'alice removes her directory' 0 rmdir /private
        check 'bob has his account back' eventually uses_bytes "$bob" 0

        expect_as "$bob" 'one byte over the limit is over quota' 5 create /big 8388609
        check 'the error says over quota once' [ "$(grep -o 'over quota' "$err" | wc -l)" -eq 1 ]
        complains 'with the numbers' '^shmdctl: /big: over quota: .*\(asked [0-9]+, left 8388608, limit 8388608, slot bytes, account of 64102\)$'
        json_error_as "$bob" 'over quota is JSON on request' 5 \
                'd["errno"] == "EDQUOT" and d["slot"] == "bytes" and d["uid"] == 64102 and d["left"] == d["limit"] == 8388608 and d["asked"] >= 8388609' \
                create /big 8388609
        json_error_as "$bob" 'a size of 2^63 is over quota, or no size' 5 'd["exit"] == 5' create /big 9223372036854775807
        expect_as "$bob" 'the last byte under the limit is not' 0 create /big 8388608
        expect_as "$bob" 'rm /big' 0 rm /big
        truncate -s 100G "$dir/tmp/sparse"
        chmod 0644 "$dir/tmp/sparse"
        expect_as "$bob" 'put of a file over quota is refused before it is read' 5 put /big "$dir/tmp/sparse"
        complains 'with its length' 'asked 107374182400'
        as "$bob" sh -c 'shmdctl --socket="$1" put /big </dev/zero' - "$socket" >"$out" 2>"$err"
        check 'put of endless input is refused when too much has come' [ $? -eq 5 ]
        expect_as "$bob" 'it leaves no name' 3 stat /big
        check 'bob has his account back again' eventually uses_bytes "$bob" 0

        check 'alice holds a region' hold_as "$alice" create /shared 1M --mode=0666
        json 'root sees who holds it' 'd["holders"][0]["uid"] == 64101 and d["holders"][0]["pid"] == '"$held" \
                stat /shared --holders
        expect_as "$alice" 'alice takes its name away' 0 rm /shared
        json_as "$alice" 'it is an orphan of hers' '[n["size"] for n in d] == [1048576]' ls --orphans
        json_as "$bob" 'that bob does not see' 'd == []' ls --orphans
        json 'and root does' '[n["uid"] for n in d] == ['"$alice"']' ls --orphans
        run_as "$alice" --json ls --orphans
        expect_as "$alice" 'alice names it again' 0 publish "$(field 'd[0]["region"]' <"$out")" /shared
        expect_as "$bob" 'bob makes a region' 0 create /bob 4K
        json_as "$bob" 'in top bob sees his account and what he may list' \
                '[a["uid"] for a in d["accounts"]] == ['"$bob"'] and {r["path"] for r in d["regions"]} >= {"/shared", "/bob"}' \
                top -d 100ms
        json 'and root everybody' '{'"$alice"', '"$bob"'} <= {a["uid"] for a in d["accounts"]}' top -d 100ms
        expect_as "$alice" 'other accounts are not hers to see' 4 df --accounts
        expect_as "$alice" 'nor is one of them' 4 df --user="$bob"
        json 'root sees every account' '{64101, 64102} <= {a["uid"] for a in d}' df --accounts
        expect 'df --accounts is a table' 0 df --accounts
        says 'with a line for each' '^64102 +bytes +8.0M '
        check 'metrics of alice is OpenMetrics text' metrics_are_valid "$alice"
        check 'metrics of alice has her account alone' \
                eval '[ "$(grep -c "^shmd_account_used_bytes" "$out")" -eq 1 ] && grep -q "uid=\"64101\"" "$out"'
        check 'metrics of root is OpenMetrics text' metrics_are_valid 0
        check 'metrics of root has all' eval '[ "$(grep -c "^shmd_account_used_bytes" "$out")" -ge 2 ]'

        expect_as "$bob" 'bob removes his' 0 rm /bob
        release
        expect_as "$alice" 'rm /shared' 0 rm /shared
        check 'alice has her account back' eventually uses_bytes "$alice" 0
}

# entries SENTENCE NAME LINE...: acl shows exactly these entries.
entries() {
        local sentence=$1 name=$2

        shift 2
        run_as "$me" acl --numeric "$name"
        if [ "$status" -eq 0 ] && [ "$(grep -v '^#' "$out")" = "$(printf '%s\n' "$@")" ]; then
                ok "$sentence"
        else
                not_ok "$sentence" "wanted:" "$@"
        fi
}

test_acl() {
        expect 'mkdir for ACLs' 0 mkdir /acl -m 1750
        expect 'create for ACLs' 0 create /acl/x 1 -m 0640
        entries 'an ACL that is no more than the mode' /acl/x user::rw- group::r-- other::---
        expect 'acl shows a heading' 0 acl /acl
        says 'with the name' '^# name: /acl$'
        says 'with the owner' '^# owner: '
        says 'with the sticky bit' '^# flags: --t$'
        json 'ls says that there is none' 'not d[0]["acl"]' ls /acl

        expect 'acl -m adds entries' 0 acl -m "u:$alice:rw,g:$bob:r" /acl/x
        entries 'and the mask is their union' /acl/x user::rw- "user:$alice:rw-" group::r-- "group:$bob:r--" mask::rw- other::---
        json 'ls --json says that there is one' 'd[0]["acl"] and d[0]["mode"] == "0660"' ls /acl
        expect 'ls -l marks it' 0 ls -l /acl
        says 'with a plus' '^-rw-rw----\+ '
        expect 'stat as well' 0 stat /acl/x
        says 'with a plus, too' 'mode +-rw-rw----\+$'
        expect 'chmod changes the mask' 0 chmod 0600 /acl/x
        entries 'and what is left is shown' /acl/x user::rw- "user:$alice:rw-"$'\t#effective:---' group::r--$'\t#effective:---' \
                "group:$bob:r--"$'\t#effective:---' mask::--- other::---
        expect 'acl -n leaves the mask' 0 acl -n -m "u:$bob:7" /acl/x
        entries 'as it was' /acl/x user::rw- "user:$alice:rw-"$'\t#effective:---' "user:$bob:rwx"$'\t#effective:---' \
                group::r--$'\t#effective:---' "group:$bob:r--"$'\t#effective:---' mask::--- other::---
        expect 'acl -m with a mask takes that' 0 acl -m "m::r" /acl/x
        json 'acl --json' '[e["effective"] for e in d[0]["access"]] == ["rw-", "r--", "r--", "r--", "r--", "r--", "---"]' acl /acl/x
        json 'with ids' '[e["id"] for e in d[0]["access"] if "id" in e] == ['"$alice, $bob, $bob"']' acl /acl/x
        expect 'acl -x removes' 0 acl -x "u:$alice,g:$bob" /acl/x
        entries 'those entries' /acl/x user::rw- "user:$bob:rwx" group::r-- mask::rwx other::---
        expect 'acl -x of what is not there' 0 acl -x "u:12345" /acl/x
        expect 'the owner stays' 2 acl -x u /acl/x
        expect 'acl -b removes all that is more than a mode' 0 acl -b /acl/x
        entries 'and leaves the mode' /acl/x user::rw- group::r-- other::---
        expect 'acl --set replaces' 0 acl --set "u::rw,g::-,o::r,u:$bob:r" /acl/x
        entries 'everything' /acl/x user::rw- "user:$bob:r--" group::--- mask::r-- other::r--
        expect 'a list that is not complete is refused' 1 acl --set "u::rw,o::r" /acl/x
        complains 'with a reason' 'an ACL has an entry each for the owner, the owning group and others'

        expect 'acl -d makes a default ACL' 0 acl -d -m "u:$alice:rw" /acl
        entries 'that has what it lacked from the ACL' /acl user::rwx group::r-x other::--- default:user::rwx \
                "default:user:$alice:rw-" default:group::r-x default:mask::rwx default:other::---
        expect 'create below it' 0 create /acl/y 1 -m 0660
        entries 'inherits' /acl/y user::rw- "user:$alice:rw-" group::r-x$'\t#effective:r--' mask::rw- other::---
        expect 'mkdir below it' 0 mkdir /acl/d -m 0700
        entries 'inherits both' /acl/d user::rwx "user:$alice:rw-"$'\t#effective:---' group::r-x$'\t#effective:---' mask::--- \
                other::--- default:user::rwx "default:user:$alice:rw-" default:group::r-x default:mask::rwx default:other::---
        expect 'd: in front is the same as -d' 0 acl -m "d:u:$alice:r,d:m::r,u:$bob:x" /acl
        entries 'both lists at once' /acl user::rwx "user:$bob:--x" group::r-x mask::r-x other::--- default:user::rwx \
                "default:user:$alice:r--" default:group::r-x$'\t#effective:r--' default:mask::r-- default:other::---
        run_as "$me" acl /acl
        check 'what is shown can be set' shmdctl --socket="$socket" acl --set "$(cat "$out")" /acl/d
        json 'with --json it says what there is then' 'd[0]["default"] == [] and d[0]["path"] == "/acl"' acl -k /acl
        expect 'a region has no default ACL' 1 acl -d -m "u:$alice:r" /acl/x
        complains 'the refusal says so' 'a region has no default ACL'
        json 'several names' '[a["path"] for a in d] == ["/acl/x", "/acl/y"]' acl /acl/x /acl/y
        expect 'of which one is missing' 3 acl -b /acl/z /acl/y
        entries 'the others are done' /acl/y user::rw- group::r-x other::---
        expect 'rm for ACLs' 0 rm /acl/x /acl/y
        expect 'rmdir for ACLs' 0 rmdir /acl/d /acl
}

# explains SENTENCE UID STATUS LINE... -- ARGS...: why exits so, and its lines begin like that.
explains() {
        local sentence=$1 uid=$2 wanted=$3 line
        local -a lines=()

        shift 3
        while [ "$1" != -- ]; do
                lines+=("$1")
                shift
        done
        shift
        run_as "$uid" why "$@"
        if [ "$status" -ne "$wanted" ]; then
                not_ok "$sentence" "exit status $status, not $wanted"
                return
        fi
        for line in "${lines[@]}"; do
                if ! grep -Eq -- "^$line" "$out"; then
                        not_ok "$sentence" "no line begins like $line"
                        return
                fi
        done
        ok "$sentence"
}

test_why() {
        if [ "$(id -u)" -ne 0 ]; then
                skip 'why' 'only root can be several users'
                return
        fi
        expect 'mkdir for why' 0 mkdir /why -m 0755
        expect 'create for why' 0 create /why/x 1 -m 0640
        explains 'why open, of root' 0 0 'ok +directory-search +/ +an administrator' 'ok +region-read +/why/x ' allowed -- \
                open /why/x
        explains 'why open, of alice' "$alice" 1 'ok +directory-search +/why +everybody else has r-x$' \
                'no +region-read +/why/x +everybody else has ---$' 'refused: no read permission' \
                "try: shmdctl acl -m u:$alice:r /why/x\$" -- open /why/x
        explains 'root asks for alice' 0 1 'no +region-read ' "try: shmdctl acl -m u:$alice:r /why/x\$" -- \
                --as="$alice" cat /why/x
        expect 'what it says helps' 0 acl -m "u:$alice:r" /why/x
        explains 'now alice may' "$alice" 0 "ok +region-read +/why/x +its ACL's uid $alice has r--\$" allowed -- open /why/x
        explains 'but not write' "$alice" 1 'no +region-write ' "try: shmdctl acl -m u:$alice:rw /why/x\$" -- write /why/x
        explains 'why create' "$alice" 1 'no +directory-write +/why/new ' "try: shmdctl acl -m u:$alice:rwx /why\$" -- \
                create /why/new --size=4K
        expect 'what it says helps again' 0 acl -m "u:$alice:rwx" /why
        explains 'limits are shown with their figures' "$alice" 0 'ok +limit +/why/new +4096 bytes asked, [0-9]+ left of ' -- \
                create /why/new --size=4K
        explains 'and which of them is too small' "$bob" 1 'no +limit +/big +9437184 bytes asked, 8388608 left of 8388608$' \
                'try: shmdctl df --user=' -- put /big --size=9M
        explains 'why chmod' "$alice" 1 'no +owner +/why/x ' "try: shmdctl chown $alice /why/x\$" -- acl /why/x
        explains 'why mv' "$bob" 1 'no +directory-write ' -- mv /why/x /bobs
        explains 'a name that is missing' "$bob" 1 'no +missing +/why/y ' -- stat /why/y
        expect 'create a name with a space' 0 create '/why/a b' 1
        explains 'is quoted' 0 1 "try: shmdctl stat '/why/a b'\$" -- mkdir '/why/a b'
        expect_as "$bob" 'only administrators ask for others' 4 why --as="$alice" open /why/x
        run_as "$bob" --json why write /why/x
        check 'why --json' python '(not d["allowed"] and d["errno"] == "EACCES" and d["reason"] == "region-read" and
                d["steps"][-1]["wanted"] == "r--" and d["steps"][-1]["by"] == "other" and d["steps"][0]["thing"] == "/" and
                d["try"].startswith("shmdctl acl"))' "$out"
        run_as "$bob" --quiet why write /why/x
        check 'why --quiet says nothing' [ ! -s "$out" ]
        expect 'rm for why' 0 rm /why/x '/why/a b'
        expect 'rmdir for why' 0 rmdir /why
}

# -- completion -----------------------------------------------------------------------------------------

# complete_bash WORD...: what bash offers for the last word.
complete_bash() {
        SHMD_SOCKET=$socket bash -c '
                . "$1"
                shift
                COMP_WORDS=(shmdctl "$@")
                COMP_CWORD=$#
                _shmdctl 2>/dev/null
                printf "%s\n" "${COMPREPLY[@]}"' - "$source/client/ctl/completion/shmdctl.bash" "$@" 2>&1
}

# completes EXPECTED WORD...
completes() {
        local expected=$1

        shift
        [ "$(complete_bash "$@")" = "$expected" ]
}

options_of() {
        shmdctl "$1" --help | sed -nE 's/^ +(-.,)? *(--[a-z-]+).*/\2/p' | LC_ALL=C sort -u
}

test_completion() {
        local command

        expect 'mkdir /complete' 0 mkdir /complete
        expect 'create /complete/region one' 0 create '/complete/region one' 1
        check 'bash completes every command' [ "$(complete_bash '' | tr '\n' ' ')" = "$commands " ]
        check 'bash completes a part of a command' [ "$(complete_bash rm | tr '\n' ' ')" = 'rm rmdir ' ]
        # It waits a second for the broker, and offers none then.
        check 'bash completes names of the broker' eventually completes $'/complete\n/complete/region\\ one' cat /com
        check 'bash completes names after options' eventually completes '/complete/region\ one' --json ls -l /complete/
        check 'bash completes values of options' [ "$(complete_bash create /a 1 --lifetime = s)" = session ]
        check 'bash completes what top sorts by' [ "$(complete_bash top --sort = r)" = rate ]
        check 'bash completes files where a file is meant' \
                [ "$(complete_bash put /a "$dir/shmd.c")" = "$dir/shmd.conf" ]
        for command in $commands; do
                check "bash knows the options of $command" \
                        [ "$(complete_bash "$command" -- | tr -d = | LC_ALL=C sort)" = "$(options_of "$command")" ]
        done
        expect 'rm of it' 0 rm '/complete/region one'
        expect 'rmdir of it' 0 rmdir /complete

        if command -v zsh >/dev/null; then
                check 'the zsh completion is valid' zsh -n "$source/client/ctl/completion/_shmdctl"
        else
                skip 'the zsh completion is valid' 'there is no zsh'
        fi
        for command in $commands; do
                check "the zsh completion knows $command" grep -q "'$command:" "$source/client/ctl/completion/_shmdctl"
        done
        if command -v fish >/dev/null; then
                check 'fish completes every command' [ "$(HOME=$dir fish --no-config -c \
                        "source $source/client/ctl/completion/shmdctl.fish; complete -C 'shmdctl '" 2>&1 |
                        cut -f1 | LC_ALL=C sort | tr '\n' ' ')" = "$(tr ' ' '\n' <<<"$commands" | LC_ALL=C sort | tr '\n' ' ')" ]
        else
                skip 'fish completes every command' 'there is no fish'
        fi
}

test_manual() {
        local command option missing=''

        if command -v mandoc >/dev/null; then
                check 'the manual page is clean' eval \
                        '[ -z "$(mandoc -Tlint -W warning "$source/client/ctl/shmdctl.1" 2>&1)" ]'
        else
                skip 'the manual page is clean' 'there is no mandoc'
        fi
        for command in $commands; do
                check "the manual page has $command" grep -q "^\\.It Cm $command\\>" "$source/client/ctl/shmdctl.1"
                for option in $(options_of "$command"); do
                        [ "$option" = --usage ] || grep -q "\(Fl\|,\) -${option#--}\\>" "$source/client/ctl/shmdctl.1" ||
                                missing="$missing $option"
                done
        done
        check 'the manual page has every option' [ -z "$missing" ]
}

# -- all of it -------------------------------------------------------------------------------------------

me=$(id -u)
test_usage
start_broker
test_broker
test_create
test_put
test_put_interrupted
test_progress
test_freeze
test_ends
test_names
test_move
test_acl
test_why
test_wait
test_watch
test_restart
test_figures
test_reload
test_state
test_upgrade
test_tickets
test_bell
test_holders
test_pages
test_top
test_doctor
test_users
test_completion
test_manual
stop_broker

if [ "$skipped" -eq 0 ]; then
        echo "$passed passed, $failed failed"
else
        echo "$passed passed, $failed failed, $skipped skipped"
fi
[ "$failed" -eq 0 ]
