#!/usr/bin/env bash
# Makes this checkout ready: OS packages where that is allowed, then .venv with pinned versions.
#
#   scripts/setup.sh              both; what is already there is left alone
#   scripts/setup.sh --no-system  never touch OS packages (also: POCKETSHIP_NO_SYSTEM_PACKAGES=1)
#   scripts/setup.sh --retry      try OS packages again that could not be installed before
#
# POCKETSHIP_PYTHON chooses the Python 3.11. Everything that pip and apt print is in build/setup.log.
# Exit codes: 0 ready; 2 bad usage; 6 no usable Python 3.11; 7 an installation failed.
#
# Kept to what bash 3.2 knows, so that a Mac can run it too.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
# Not plain `pwd`: the stamp must be the same by whichever link the checkout was entered.
ROOT=$(pwd -P)
VENV=.venv
STAMP=$VENV/.pocketship-ready
INSTALLING=$VENV/.pocketship-installing
MADE=$VENV/.pocketship-made
LOG=build/setup.log
REFUSED=build/setup.refused
# What .venv takes with the CPU build of torch is 2,410 MiB; downloads and unpacking come on top.
NEEDED_MIB=3500

say() { printf 'setup: %s\n' "$*"; }
fail() {
    local code=$1
    shift
    printf 'setup: error: %s\n' "$@" >&2
    exit "$code"
}

system=1
retry=0
[ "${POCKETSHIP_NO_SYSTEM_PACKAGES:-0}" = 1 ] && system=0
for argument in "$@"; do
    case $argument in
    --no-system) system=0 ;;
    --retry) retry=1 ;;
    -h | --help)
        sed -n '2,10s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
        exit 0
        ;;
    *) fail 2 "unknown option $argument; scripts/setup.sh --help lists them" ;;
    esac
done

# --- What the machine must have ------------------------------------------------------------------

have() { command -v "$1" >/dev/null 2>&1; }
# Debian keeps these outside the PATH of an ordinary user.
have_sbin() { have "$1" || [ -x "/usr/sbin/$1" ] || [ -x "/sbin/$1" ]; }
have_cross() { have aarch64-linux-gnu-g++ && [ -e /usr/aarch64-linux-gnu/include/stdio.h ]; }

have_browser() { have chromium || have chromium-browser || have google-chrome; }
# Debian keeps the server's programs in a folder of its version.
have_postgres() { compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null; }

# One line a part: "package(s)|what does not work without it". Only what is missing is printed.
missing_parts() {
    have make || echo "make|make demo, make test"
    have g++ || echo "g++|building the native runner: nothing can be benchmarked, also not on host"
    have_cross || echo "g++-aarch64-linux-gnu libc6-dev-arm64-cross|the ARM64 bundle: no phone, real or emulated"
    have qemu-system-aarch64 || echo "qemu-system-arm|the emulated phone: runs are host only"
    have adb || echo "adb|adb shell to a phone by hand, and the tests with Google's client"
    have_sbin mke2fs || echo "e2fsprogs|the emulated phone's disk"
    have cpio || echo "cpio|a test that lets GNU cpio judge the RAM disk"
    [ -n "${FASHION_MNIST:-}" ] || [ -e /usr/share/datasets/fashion-mnist ] ||
        echo "dataset-fashion-mnist|make bench-compress and the examples on Fashion-MNIST"
    have_browser || echo "chromium|the tests of reports in a real browser"
    have_postgres || echo "postgresql|the tests of a shared history"
    { have dpkg-deb && have apt-get; } || echo "dpkg apt|building the emulated phone's image (needs Debian or Ubuntu)"
    if [ -n "${PYTHON:-}" ] && ! can_make_venv "$PYTHON"; then
        echo "python3.11-venv|the virtual environment: nothing works"
    elif [ -z "${PYTHON:-}" ]; then
        echo "python3.11 python3.11-venv|everything: pocketship needs Python 3.11"
    fi
}

is_python311() {
    # A pyenv shim of that name may exist and still not be 3.11, or refuse to run: ask it.
    "$1" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' >/dev/null 2>&1
}
can_make_venv() { "$1" -c 'import venv, ensurepip' >/dev/null 2>&1; }

find_python() {
    local candidate first=""
    if [ -n "${POCKETSHIP_PYTHON:-}" ]; then
        is_python311 "$POCKETSHIP_PYTHON" ||
            fail 6 "POCKETSHIP_PYTHON=$POCKETSHIP_PYTHON is not a Python 3.11 that runs"
        printf '%s\n' "$POCKETSHIP_PYTHON"
        return
    fi
    for candidate in python3.11 /usr/bin/python3.11 /usr/local/bin/python3.11 \
        /opt/homebrew/bin/python3.11 python3 python; do
        is_python311 "$candidate" || continue
        if can_make_venv "$candidate"; then
            printf '%s\n' "$candidate"
            return
        fi
        [ -n "$first" ] || first=$candidate
    done
    printf '%s\n' "$first"
}

# --- OS packages ---------------------------------------------------------------------------------

privileged() {
    if [ "$(id -u)" = 0 ]; then
        env DEBIAN_FRONTEND=noninteractive "$@"
    else
        sudo -n env DEBIAN_FRONTEND=noninteractive "$@"
    fi
}
may_install() {
    [ "$system" = 1 ] && have apt-get &&
        { [ "$(id -u)" = 0 ] || { have sudo && sudo -n true >/dev/null 2>&1; }; }
}
apt_install() {
    privileged apt-get install -y -q --no-install-recommends -o DPkg::Lock::Timeout=300 "$@" \
        </dev/null >>"$LOG" 2>&1
}

install_system_packages() {
    local packages package
    packages=$(printf '%s\n' "$1" | cut -d'|' -f1 | tr '\n' ' ')
    say "installing OS packages: $packages"
    privileged apt-get update -q -o DPkg::Lock::Timeout=300 </dev/null >>"$LOG" 2>&1 ||
        say "apt-get update failed (see $LOG); going on with the package lists that are there"
    # shellcheck disable=SC2086  # a list of package names that this script wrote
    if ! apt_install $packages; then
        # One name that this release does not have must not keep the others away.
        for package in $packages; do
            apt_install "$package" || say "could not install $package (see $LOG)"
        done
    fi
}

print_missing() {
    local packages what
    say "missing here, going on without:"
    printf '%s\n' "$1" | while IFS='|' read -r packages what; do
        printf 'setup:   %-45s needed for %s\n' "$packages" "$what"
    done
    if have apt-get; then
        say "to add them: sudo apt-get install --no-install-recommends $(
            printf '%s\n' "$1" | cut -d'|' -f1 | tr '\n' ' '
        )"
    else
        say "these are Debian's package names; install what your system calls them"
    fi
}

# --- Python --------------------------------------------------------------------------------------

hash_stdin() { if have sha256sum; then sha256sum; else shasum -a 256; fi; }
fingerprint() {
    # The place is part of it: a virtual environment does not survive being moved.
    { printf '%s\n' "$ROOT" && cat pyproject.toml constraints.txt scripts/setup.sh; } |
        hash_stdin | cut -d' ' -f1
}
ready() {
    [ -f "$STAMP" ] && [ ! -e "$INSTALLING" ] && [ -x "$VENV/bin/python" ] &&
        [ "$(cat "$STAMP")" = "$WANTED" ]
}

pip_step() {
    local title=$1
    shift
    say "$title"
    # One line for each large download, so that minutes of silence do not look like a hang.
    if ! "$VENV/bin/python" -m pip --disable-pip-version-check --no-input install \
        --progress-bar off "$@" </dev/null 2>&1 | tee -a "$LOG" |
        awk '/^ *Downloading .*\(([0-9][0-9]+[.0-9]* MB|[0-9.]+ GB)\)/ && !/metadata/ {
                 n = split($2, part, "/"); split(part[n], name, "-")
                 print "setup:   downloading " name[1] " " $(NF - 1) " " $NF; fflush()
             }
             /^Installing collected packages/ { print "setup:   unpacking"; fflush() }'; then
        grep -E '^(ERROR|error)|No space|Could not|Temporary failure' "$LOG" | tail -n 3 >&2 || true
        if grep -qE 'Retrying \(|\(from versions: none\)|NewConnectionError' "$LOG"; then
            say "the package index may be out of reach: check the network and pip's configuration" >&2
        fi
        fail 7 "$title: failed; all of pip's output is in $LOG. Run the same command again to resume"
    fi
}

# The scripts of a virtual environment name its folder: after a move they start another Python.
stands_here() {
    [ -x "$VENV/bin/python" ] && { [ -L "$VENV" ] || [ ! -f "$VENV/bin/pip" ] ||
        head -n 3 "$VENV/bin/pip" | grep -qF "$ROOT/$VENV/"; }
}
make_venv() {
    local free
    free=$(df -Pm . | awk 'NR == 2 { print $4 }')
    [ "$free" -ge "$NEEDED_MIB" ] ||
        fail 7 "$ROOT has $free MiB free; the Python packages need about $NEEDED_MIB MiB"
    # Only what this script made is ever removed: a .venv of the user's own is installed into.
    if [ -e "$MADE" ] && [ ! -L "$VENV" ] && { [ -e "$INSTALLING" ] || ! stands_here; }; then
        # pip takes a package that was cut off half-way for installed, so mending is not enough.
        say "$VENV was cut off or moved: starting it afresh"
        # Renamed first: half a removal would look like an environment of the user's own.
        mv "$VENV" "build/discarded.$$"
    fi
    rm -rf build/discarded.*
    if [ ! -e "$VENV" ]; then
        mkdir "$VENV"
        : >"$MADE"
    fi
    [ ! -e "$MADE" ] || : >"$INSTALLING"
    rm -f "$STAMP"
    if [ ! -x "$VENV/bin/python" ]; then
        say "making $VENV with $("$PYTHON" --version 2>&1)"
        "$PYTHON" -m venv "$VENV" >>"$LOG" 2>&1 ||
            fail 7 "$PYTHON -m venv failed; see $LOG"
    fi
    { is_python311 "$VENV/bin/python" && stands_here; } ||
        fail 7 "$VENV is not a Python 3.11 environment made here; move it away and run this again"
    # pip of the pinned version resolves the same everywhere; --build-constraint needs a recent one.
    pip_step "pip" "$(grep '^pip==' constraints.txt)"
    # torch first and alone: where a CPU build is offered beside the default one, it is chosen here.
    pip_step "torch" -c constraints.txt torch
    pip_step "pocketship and its dependencies" -c constraints.txt --build-constraint constraints.txt \
        -e '.[examples,dev,postgres,parquet]'
    "$VENV/bin/python" -m pip check >>"$LOG" 2>&1 ||
        fail 7 "the installed packages do not fit each other; see the end of $LOG"
    printf '%s\n' "$WANTED" >"$STAMP.tmp"
    mv -f "$STAMP.tmp" "$STAMP"
    rm -f "$INSTALLING"
}

# --- The work ------------------------------------------------------------------------------------

# Settings of the caller that would lead pip or Python away from .venv.
unset PYTHONHOME PYTHONPATH VIRTUAL_ENV PIP_TARGET PIP_PREFIX
export PIP_USER=0
mkdir -p build
if have flock; then
    # Two make commands at once must not install into the same folder.
    exec 9>build/setup.lock
    if ! flock -n 9; then
        say "another set-up is at work here; waiting for it"
        flock 9
    fi
fi

WANTED=$(fingerprint)
if ready; then PYTHON=$VENV/bin/python; else PYTHON=$(find_python); fi
missing=$(missing_parts)
ready || : >"$LOG"
if [ -n "$missing" ]; then
    if { [ "$retry" = 0 ] && [ -f "$REFUSED" ] && [ "$(cat "$REFUSED")" = "$missing" ]; } ||
        ! may_install; then
        print_missing "$missing"
        if [ "$system" = 1 ] && have apt-get; then
            if [ -f "$REFUSED" ]; then
                say "they could not be installed before; scripts/setup.sh --retry tries again"
            else
                say "they are installed by this script only as root or with passwordless sudo"
            fi
        fi
    else
        install_system_packages "$missing"
        PYTHON=$(find_python)
        missing=$(missing_parts)
        if [ -n "$missing" ]; then
            printf '%s\n' "$missing" >"$REFUSED"
            print_missing "$missing"
        else
            rm -f "$REFUSED"
        fi
    fi
fi

if ready; then
    say "ready"
    exit 0
fi
[ -n "$PYTHON" ] ||
    fail 6 "no Python 3.11 found (tried python3.11, python3, python). Install it, or set POCKETSHIP_PYTHON=/path/to/python3.11"
can_make_venv "$PYTHON" ||
    fail 6 "$PYTHON cannot make virtual environments. Install python3.11-venv, or set POCKETSHIP_PYTHON"
make_venv
say "ready: $("$VENV/bin/python" --version) in $VENV"
