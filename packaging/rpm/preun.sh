#FUNCTIONS#

# What %systemd_user_preun does, at the removal and not at an upgrade.
if [ "$1" -eq 0 ]; then
    if command -v systemctl >/dev/null; then
        systemctl --global disable styxy.socket styxy-unix.socket >/dev/null 2>&1 || true
    fi
    in_managers retire_units
    end_daemons /usr/bin/styxy
fi
exit 0
