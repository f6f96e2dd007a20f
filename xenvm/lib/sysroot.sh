# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
# Building for the machine's release with the host's compilers: headers and
# libraries are those in $cache/sysroot, whatever the host itself has installed.

# with_sysroot COMMAND...: run it so that the C compiler (for make: $CC),
# pkg-config and cargo use the sysroot.  What cargo builds lies in a directory of
# its own, as for another target.
with_sysroot() {
    local sysroot=$cache/sysroot libraries link='' status=0
    # Compilers get it in lists of words.
    if [[ $sysroot == *[[:space:]]* ]]; then
        link=$(mktemp -d)
        ln -s "$sysroot" "$link/sysroot"
        sysroot=$link/sysroot
    fi
    libraries=$sysroot/$lib_dir
    # Not all of the linking goes through pkg-config: without -L some libraries
    # would silently be the host's.
    env CC="gcc --sysroot=$sysroot -L$libraries -Wl,-rpath-link,$libraries" \
        PKG_CONFIG_ALLOW_CROSS=1 PKG_CONFIG_SYSROOT_DIR="$sysroot" \
        PKG_CONFIG_LIBDIR="$libraries/pkgconfig:$sysroot/usr/share/pkgconfig" \
        BINDGEN_EXTRA_CLANG_ARGS="--sysroot=$sysroot" \
        CARGO_TARGET_DIR="$target/xen-$release" CARGO_BUILD_TARGET=x86_64-unknown-linux-gnu \
        CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS="-L native=$libraries -C link-arg=--sysroot=$sysroot -C link-arg=-Wl,-rpath-link,$libraries" \
        "$@" || status=$?
    [ -z "$link" ] || rm -r "$link"
    return $status
}
