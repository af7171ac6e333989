#FUNCTIONS#

# What %systemd_user_postun_with_restart does.
if [ "$1" -ge 1 ]; then
    in_managers restart_daemon
else
    in_managers forget_units
fi
end_daemons '/usr/bin/styxy (deleted)'
exit 0
