# What %systemd_user_post does: at the first installation the presets of the distribution say, and
# that of this package says disabled.
if [ "$1" -eq 1 ]; then
    if command -v systemctl >/dev/null; then
        systemctl --no-reload --global preset styxy.socket styxy-unix.socket >/dev/null 2>&1 || true
    fi
fi
exit 0
