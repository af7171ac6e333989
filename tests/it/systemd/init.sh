#!/bin/sh
# The first process of a small machine of its own: mounts, processes and network of nobody else.
# It ends, and everything in it, when its standard input is closed.
#
#   init.sh SCRATCH STYXY CGROUP
set -e
exec 3<&0
scratch=$1 styxy=$2 cgroup=$3

mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs /run
# systemd looks for this before it starts a user manager.
mkdir -p /run/systemd/system /run/systemd/journald.conf.d /run/user
mount --bind "$scratch/passwd" /etc/passwd
mount --bind "$scratch/group" /etc/group
# As a package would install it.
mount -t overlay -o "lowerdir=$scratch/bin:/usr/bin" overlay /usr/bin
mount --bind "$styxy" /usr/bin/styxy
mount -t overlay -o "lowerdir=$scratch/units:/usr/lib/systemd/user" overlay /usr/lib/systemd/user
ip link set lo up

# One hierarchy, whatever this machine has, and in it a place for this one.
mount -t cgroup2 none /sys/fs/cgroup
mkdir "/sys/fs/cgroup/$cgroup"
echo 0 >"/sys/fs/cgroup/$cgroup/cgroup.procs"

printf '[Journal]\nStorage=volatile\nReadKMsg=no\nAudit=no\nRateLimitIntervalSec=0\n' \
    >/run/systemd/journald.conf.d/test.conf
mkdir -p /run/log/journal
/lib/systemd/systemd-journald &

echo started
# It also buries the children of those who have died, as the first process of a machine does.
cat >/dev/null <&3 &
wait $!
