#!/bin/sh
# Says what this machine lacks to build mullama, and how to get it. Prints
# nothing and succeeds when it lacks nothing.
#   PYTHON  the Python to use; default python3
python=${PYTHON:-python3}
missing=0

need() {
    printf 'missing: %s\n         %s\n' "$1" "$2" >&2
    missing=1
}

has() { command -v "$1" >/dev/null 2>&1; }

# at_least 1.88 1.95.0: whether the second version is the first one or newer.
at_least() {
    awk -v least="$1" -v have="$2" 'BEGIN {
        split(least, a, "."); split(have, b, ".")
        exit !(b[1] + 0 > a[1] + 0 || (b[1] + 0 == a[1] + 0 && b[2] + 0 >= a[2] + 0))
    }'
}

if has cargo && has rustc; then
    version=$(rustc --version | awk '{ print $2 }')
    at_least 1.88 "$version" || need "Rust 1.88 or newer (this is $version)" "run: rustup update stable"
    cargo fmt --version >/dev/null 2>&1 || need "rustfmt" "run: rustup component add rustfmt"
    cargo clippy --version >/dev/null 2>&1 || need "clippy" "run: rustup component add clippy"
else
    need "Rust 1.88 or newer (cargo and rustc)" "install it with rustup, or from the system's packages"
fi

for compiler in "${CC:-cc}" "${CXX:-c++}"; do
    # CC may carry arguments: only the first word is a program.
    # shellcheck disable=SC2086
    set -- $compiler
    has "$1" || need "a C and C++ compiler ($1)" "Debian, Ubuntu: apt install g++; Fedora: dnf install gcc-c++; macOS: xcode-select --install"
done

if has "$python" && "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
    "$python" -c 'import venv, ensurepip' 2>/dev/null || need "Python's venv module" "Debian, Ubuntu: apt install python3-venv"
else
    need "Python 3.10 or newer as '$python'" "install it, or name one: make PYTHON=/path/to/python3"
fi

if has node && has npm; then
    version=$(node --version)
    at_least 20 "${version#v}" || need "Node 20 or newer (this is $version)" "install a newer Node"
else
    need "Node 20 or newer (node and npm)" "install Node with npm"
fi

exit $missing
