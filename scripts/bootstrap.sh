# Sourced by the scripts beside it (POSIX sh). Sets $checkout; offers what they begin with.
# Everything it writes stays inside the checkout.

checkout=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P) || exit 1

fail() {
    printf '%s: %s\n' "$(basename -- "$0")" "$*" >&2
    exit 1
}

# Prints the first Python of at least 3.11, trying $PYTHON before the usual names.
find_python() {
    too_old=''
    for candidate in ${PYTHON:+"$PYTHON"} python3 python3.14 python3.13 python3.12 python3.11 python; do
        version=$("$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue
        if "$candidate" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            printf '%s\n' "$candidate"
            return 0
        fi
        too_old="$too_old $candidate is $version,"
    done
    if [ -n "$too_old" ]; then
        fail "Siteworks needs Python 3.11 or newer with its venv module (found:${too_old%,}); install one, or name it: PYTHON=/path/to/python3.12 $0"
    fi
    fail "Siteworks needs Python 3.11 or newer, and no python3 was found on the PATH; install one, or name it: PYTHON=/path/to/python3.12 $0"
}

# has_venv FOLDER NAME: whether there is a virtual environment with exactly requirements/NAME.txt, by its stamp, the
# checksum of that file.
has_venv() {
    venv=$checkout/$1
    requirements=$checkout/requirements/$2.txt
    # The folder's path is part of the stamp: a virtual environment cannot be moved.
    wanted="$(cksum <"$requirements") $venv"
    [ -x "$venv/bin/python" ] && [ "$(cat "$venv/installed" 2>/dev/null)" = "$wanted" ]
}

# ensure_venv FOLDER NAME: make or repair it. Needs no network if the stamp matches.
ensure_venv() {
    has_venv "$1" "$2" && return 0
    python=$(find_python) || exit 1
    "$python" "$checkout/scripts/make_venv.py" "$venv" "$requirements" "$wanted" || exit
}

asks_for_help() {
    for argument; do
        case $argument in -h | --help | --version) return 0 ;; esac
    done
    return 1
}

# The comment at the top of a script: its help, or as much of it as can be told while nothing is installed.
print_comment() {
    sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$checkout/scripts/$(basename -- "$0")"
}

# become MODULE ARGUMENTS…: `python -m MODULE ARGUMENTS…` in .venv. A call for help installs nothing: the module's
# parser needs no package.
become() {
    # The working directory stays, so that relative paths in the arguments work; -P keeps modules in it, perhaps those
    # of another checkout, from being imported.
    export PYTHONPATH="$checkout"
    module=$1
    shift
    if asks_for_help "$@" && ! has_venv .venv local; then
        python=$(find_python) || exit 1
        exec "$python" -P -B -m "$module" "$@"
    fi
    ensure_venv .venv local
    exec "$checkout/.venv/bin/python" -P -m "$module" "$@"
}
