# Sourced by the scripts beside it (POSIX sh). Sets $checkout; offers find_python and ensure_venv.
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

# ensure_venv FOLDER NAME: a virtual environment with exactly requirements/NAME.txt, made or repaired if its stamp is not
# the checksum of that file. Needs no network if the stamp matches.
ensure_venv() {
    venv=$checkout/$1
    requirements=$checkout/requirements/$2.txt
    # The folder's path is part of the stamp: a virtual environment cannot be moved.
    wanted="$(cksum <"$requirements") $venv"
    if [ -x "$venv/bin/python" ] && [ "$(cat "$venv/installed" 2>/dev/null)" = "$wanted" ]; then
        return 0
    fi
    python=$(find_python) || exit 1
    "$python" "$checkout/scripts/make_venv.py" "$venv" "$requirements" "$wanted" || exit 1
}
