#!/bin/bash
# Builds the module for the packaged nginx: its sources (package nginx-dev) are copied beside the
# output and configured once with the flags of the package, then only the module is made.
#
# usage: build.sh OUTPUT WORK-FOLDER MODULE-FOLDER NGINX-SOURCES INCLUDE-FOLDERS LIBRARIES...
# (INCLUDE-FOLDERS separated by blanks)
set -euo pipefail

output=$(realpath -m "$1") work=$(realpath -m "$2") module=$(realpath "$3") sources=$4 includes=$5
shift 5
libraries=()
for library in "$@"; do
        case $library in
        -*) libraries+=("$library") ;;
        *) libraries+=("$(realpath "$library")") ;;
        esac
done
folders=()
for folder in $includes; do
        folders+=("$(realpath "$folder")")
done
export MERIDIAN_INCLUDES="${folders[*]}" MERIDIAN_LIBS="${libraries[*]}"

# nginx's headers convert without casts and leave parameters unused; the rest of our flags stays.
flags="-std=gnu17 -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith"
flags+=" -Wvla -Wformat=2 -Wnull-dereference -Wdouble-promotion"
flags+=" -Wimplicit-fallthrough -Wno-unused-parameter -Wno-missing-field-initializers"
flags+=" -fstack-protector-strong -fno-omit-frame-pointer -fvisibility=default"

stamp="$work/stamp"
wanted="$sources $(stat -c %Y "$sources/conf_flags") $MERIDIAN_INCLUDES $MERIDIAN_LIBS $flags $(cksum <"$module/config")"
if [ ! -f "$stamp" ] || [ "$(cat "$stamp")" != "$wanted" ]; then
        rm -rf "$work"
        mkdir -p "$work"
        cp -r "$sources/." "$work/"
        cd "$work"
        # shellcheck disable=SC1091
        . ./conf_flags
        ./configure "${NGX_CONF_FLAGS[@]}" --with-cc-opt="$flags" --add-dynamic-module="$module" \
                >configure.log 2>&1 || {
                tail -20 configure.log >&2
                exit 1
        }
        echo "$wanted" >"$stamp"
fi
cd "$work"
rm -f objs/ngx_http_meridian_module.so
make -s -f objs/Makefile modules >make.log 2>&1 || {
        cat make.log >&2
        exit 1
}
grep -i -A5 warning make.log >&2 || true
cp objs/ngx_http_meridian_module.so "$output"
