#!/bin/sh
# Installs the services that the tests start as private, throw-away instances: only those missing, and starts none.
# make services and .ci/run call it.
set -eu
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

stop() { echo "$*" >&2; exit 1; }

has() { # package -> is its program here, from whatever source?
    case $1 in
        postgresql) command -v postgres || ls /usr/lib/postgresql/*/bin/postgres ;;
        chromium) command -v chromium || command -v google-chrome || command -v chromium-browser ;;
        *) command -v "$1" ;;
    esac >/dev/null 2>&1
}

missing=
for package in postgresql pgbouncer rabbitmq-server redis-server nginx chromium; do
    has "$package" || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

command -v apt-get >/dev/null || stop "Install these with your system's package manager, then try again:$missing"
[ "$(id -u)" = 0 ] || stop "Installing needs root; type: sudo make services (missing:$missing)"

# Debian's maintainer scripts ask policy-rc.d before they start anything; 101 forbids it.
policy=/usr/sbin/policy-rc.d
forbids() { "$policy" redis-server start >/dev/null 2>&1; [ $? -eq 101 ]; }
restore() { rm -f "$policy"; if [ -e "$policy.kept" ]; then mv "$policy.kept" "$policy"; fi; }
if ! forbids; then
    trap restore EXIT
    trap 'exit 130' INT TERM
    if [ -e "$policy" ]; then mv "$policy" "$policy.kept"; fi
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
fi

echo "Installing$missing (nothing is started)"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# shellcheck disable=SC2086 # a list of words
apt-get install -y -qq -o DPkg::Lock::Timeout=300 --no-install-recommends $missing >/dev/null

# Nor at the next boot.
if [ -d /run/systemd/system ]; then
    for package in $missing; do systemctl disable --quiet "$package" 2>/dev/null || true; done
fi
