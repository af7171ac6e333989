# shellcheck shell=sh
# What the scripts of both packages share; `packaging/build` puts it into those that call it.

# Runs COMMAND with each user manager that there is, all at once: `systemctl --user --machine UID@`
# and what follows. Nobody's manager can keep the package from being installed or removed.
in_managers() {
    [ -d /run/systemd/system ] || return 0
    for uid in $(systemctl list-units --plain --no-legend --state=active 'user@*.service' |
        sed -n 's/^user@\([0-9]*\)\.service.*/\1/p'); do
        "$@" systemctl --quiet --user --machine "$uid@" </dev/null >/dev/null 2>&1 &
    done
    wait
}

# Ends the daemons whose program is called that in /proc/PID/exe: after systemd ended its own, those
# that commands started in the background. What they handed out stays in their journals, and the
# next command starts another one. Those of a container have another root, and are not meant.
end_daemons() {
    root=$(stat --dereference --format=%d:%i /)
    pids=
    for pid in $(find /proc -mindepth 2 -maxdepth 2 -name exe -lname "$1" 2>/dev/null | cut -d/ -f3); do
        [ "$(stat --dereference --format=%d:%i "/proc/$pid/root" 2>/dev/null)" = "$root" ] || continue
        case $(tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null) in *' daemon run'*) pids="$pids $pid" ;; esac
    done
    [ -n "$pids" ] || return 0
    # shellcheck disable=SC2086 # They are several.
    kill -TERM $pids 2>/dev/null || true
    # They finish what they accepted, within 5 s.
    tries=0
    # shellcheck disable=SC2086
    while kill -0 $pids 2>/dev/null && [ "$tries" -lt 100 ]; do
        sleep 0.1
        tries=$((tries + 1))
    done
}

# The daemon of this user, if it runs, goes on as the new version: its sockets stay, and the
# allocations are in its journal.
restart_daemon() {
    "$@" daemon-reload
    "$@" try-restart styxy.service
}

# As the package came: nothing is enabled, and nothing runs.
retire_units() {
    "$@" disable styxy.socket styxy-unix.socket
    # Both sockets first, in one call: a client would start the service again.
    "$@" stop styxy.socket styxy-unix.socket styxy.service
}

# Forgets the units whose files are gone.
forget_units() {
    "$@" stop styxy.socket styxy-unix.socket styxy.service
    "$@" daemon-reload
    "$@" reset-failed styxy.socket styxy-unix.socket styxy.service
}
