#FUNCTIONS#

# What %systemd_user_postun_with_restart does.
if [ "$1" -ge 1 ]; then
    in_managers restart_daemon
else
    in_managers forget_units
    # cargo-generate-rpm has no entries for folders: these would stay.
    rmdir /usr/share/doc/styxy/examples /usr/share/doc/styxy /usr/share/licenses/styxy 2>/dev/null ||
        true
fi
end_daemons '/usr/bin/styxy (deleted)'
exit 0
