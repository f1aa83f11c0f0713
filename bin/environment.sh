# Sourced by bin/up and bin/test: the virtual environment of this checkout. POSIX sh.
# Sets `python` to the interpreter of .venv after `install_packages EXTRA`.

fail() {
    printf '\n%s\n' "$1" >&2
    exit 1
}

is_new_enough() {
    command -v "$1" >/dev/null 2>&1 && "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

find_python() {
    for candidate in python3 python3.13 python3.12 python3.11; do
        if is_new_enough "$candidate"; then
            echo "$candidate"
            return 0
        fi
    done
    return 1
}

# True where `python3 -m venv` would work: Debian ships it without the part that installs pip.
can_make_environment() {
    found=$(find_python) && "$found" -c 'import ensurepip, venv' >/dev/null 2>&1
}

# Install Debian packages as root; otherwise say what to type.
need_packages() {
    if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null 2>&1; then
        echo "  Installing $* ..."
        { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"; } \
            >.venv-packages.log 2>&1 || { cat .venv-packages.log >&2; rm -f .venv-packages.log; return 1; }
        rm -f .venv-packages.log
    else
        return 1
    fi
}

prepare_python() {
    can_make_environment && return 0
    need_packages python3 python3-venv || fail "maas needs Python 3.11 or newer with venv. On Debian or Ubuntu type:
    sudo apt-get install python3 python3-venv"
    can_make_environment || fail "maas needs Python 3.11 or newer with venv; this system's python3 is older. Install one and run this again."
}

make_environment() {
    [ -x .venv/bin/python ] && .venv/bin/python -c 'import pip' >/dev/null 2>&1 && return 0
    prepare_python
    echo "  Making the virtual environment .venv ..."
    rm -rf .venv
    "$(find_python)" -m venv .venv || fail "The virtual environment could not be made in $(pwd)/.venv."
}

# One status line while a process works: its log's last line and the seconds so far.
watch() {
    began=$(date +%s)
    spoke=$began
    while kill -0 "$1" 2>/dev/null; do
        sleep 1
        now=$(date +%s)
        last=$(tail -n 1 "$2" 2>/dev/null | tr -d '\r' | cut -c 1-90)
        if [ -t 1 ]; then
            printf '\r\033[K  Installing packages  %s s  %s' "$((now - began))" "$last"
        elif [ $((now - spoke)) -ge 10 ]; then
            spoke=$now
            printf '    %s s  %s\n' "$((now - began))" "$last"
        fi
    done
    [ -t 1 ] && printf '\r\033[K'
    return 0
}

# install_packages WHAT: pip installs the project, `.` or `.[test]`, if pyproject.toml or Python changed since.
install_packages() {
    make_environment
    python=$(pwd)/.venv/bin/python
    stamp=".venv/installed-$(echo "$1" | tr -cd 'a-z')"
    state=$( { cat pyproject.toml; "$python" -c 'import sys; print(sys.version, sys.prefix)'; } | sha256sum)
    [ "$(cat "$stamp" 2>/dev/null)" = "$state" ] && return 0
    echo "  Installing packages: some minutes and about 3 GB the first time. The log is .venv/install.log"
    "$python" -m pip install --disable-pip-version-check --no-input --progress-bar off -e "$1" >.venv/install.log 2>&1 &
    pip=$!
    trap 'kill "$pip" 2>/dev/null; echo; exit 130' INT TERM HUP
    watch "$pip" .venv/install.log
    wait "$pip" || { tail -n 25 .venv/install.log >&2; fail "pip could not install the packages; the whole log is .venv/install.log"; }
    trap - INT TERM HUP
    echo "$state" >"$stamp"
    echo "$state" >.venv/installed- # whatever has an extra has the project as well
}
