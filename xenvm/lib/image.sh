# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
# The image: what QEMU starts, and what dom0 needs to start guests.
#
#   image/xen           the hypervisor, uncompressed (QEMU's multiboot wants it so)
#   image/vmlinuz       dom0's kernel
#   image/dom0.cpio     dom0's whole file system
#   image/addons/       what only some scenarios need, to be unpacked over it: libvirt.cpio
#   image/guests/       mini (our own kernel), vmlinux and linux.cpio (Linux PV)
#
# Tests, libraries and scenarios are not in it: they come through the shared
# folder, so that changing them costs no rebuild.

# Modules, with all that they depend on, in this order.
dom0_modules=(xen-privcmd xenfs xen-evtchn xen-gntdev xen-gntalloc loop xen-blkback virtio_pci 9pnet_virtio 9p)
guest_modules=(xen-blkfront)

# Real programs, where busybox's lack what Xen's scripts or ours need.
dom0_programs=(
    usr/bin/bash usr/bin/dash usr/bin/stat usr/bin/flock usr/bin/logger usr/bin/timeout
    usr/bin/stdbuf usr/bin/setsid usr/sbin/losetup
    usr/bin/xenstore-{exists,list,read,rm,watch,write,chmod,ls}
    "$release_utils"/{xl,xenstored,xenconsoled,xenconsole,xen-init-dom0,libxl-save-helper}
)
# Loaded at run time, so that no program names them.
dom0_libraries=(libgcc_s.so.1 libxenlight.so.* libxlutil.so.* libxenstore.so.* libxenctrl.so.* libxentoollog.so.*
    libpthread.so.0 libdl.so.2 libm.so.6 libstdbuf.so)

lib_dir=usr/lib/x86_64-linux-gnu

# Bring image/ up to date.  With "refresh", look for newer packages as well.
ensure_image() {
    local mode=${1:-} root_stamp sysroot_stamp boot_stamp image_stamp
    if [ "$mode" != refresh ] && image_is_current; then
        return 0
    fi
    need_host cpio=cpio modprobe=kmod xz=xz-utils zstd=zstd gcc=gcc ld=binutils awk=gawk patchelf=patchelf \
        "$debian_keyring=debian-archive-keyring"
    lock_cache
    if [ "$mode" = refresh ] || ! packages_are_resolved; then
        if ! step "looking up the packages of Xen $release" resolve_packages; then
            packages_are_resolved || die "no package list, and none from before"
            say "going on with the packages from before"
        fi
    fi
    root_stamp=$(part_stamp root)
    sysroot_stamp=$(part_stamp sysroot)
    boot_stamp=$(part_stamp boot)
    image_stamp=$(image_stamp)
    is_made root "$root_stamp" || step "unpacking dom0's packages" make_part root "$root_stamp" unpack_packages root
    is_made sysroot "$sysroot_stamp" ||
        step "unpacking what programs are built with" make_part sysroot "$sysroot_stamp" unpack_packages sysroot
    is_made boot "$boot_stamp" || step "unpacking the hypervisor and the kernel" make_part boot "$boot_stamp" unpack_packages boot
    is_made image "$image_stamp" || step "building the image" make_part image "$image_stamp" build_image
    prune_packages
    unlock_cache
}

image_is_current() {
    packages_are_resolved && is_made image "$(image_stamp)" &&
        is_made sysroot "$(part_stamp sysroot)"
}

# What a part is made from: its packages and the scripts that make it.
part_stamp() {
    { grep "^$1 " "$cache/packages"; cat "$xenvm/lib/packages.sh"; } | sha256sum | cut -d' ' -f1
}

image_stamp() {
    {
        cat "$cache/packages" "$release_file" "$xenvm/lib/packages.sh" "$xenvm/lib/image.sh" "$xenvm/dom0/init"
        cat "$xenvm/lib/libvirt.sh"
        cat "$xenvm"/guest/*
    } | sha256sum | cut -d' ' -f1
}

build_image() {
    local out=$1 kernel work=$1/work
    kernel=$(cd "$cache/boot/boot" && compgen -G 'vmlinuz-*')
    kernel=${kernel#vmlinuz-}
    mkdir -p "$work" "$out/guests" "$out/addons"

    zcat "$cache/boot/$release_hypervisor" >"$out/xen"
    cp "$cache/boot/boot/vmlinuz-$kernel" "$out/vmlinuz"
    PATH=$PATH:/usr/sbin:/sbin depmod -b "$cache/boot" "$kernel"

    build_dom0_root "$work/dom0" "$kernel"
    pack "$work/dom0" "$out/dom0.cpio"
    build_libvirt_root "$work/libvirt" "$work/dom0"
    pack "$work/libvirt" "$out/addons/libvirt.cpio"
    build_guest_root "$work/guest" "$kernel"
    pack "$work/guest" "$out/guests/linux.cpio"
    unpack_kernel "$out/vmlinuz" >"$out/guests/vmlinux"
    build_mini_guest "$out/guests/mini"
    rm -rf "$work"
}

# pack DIRECTORY CPIO
pack() {
    (cd "$1" && find . -print0 | LC_ALL=C sort -z | cpio --null -o -H newc -R 0:0 --quiet) >"$2"
}

# The list of shared libraries that an ELF file of the dom0 root needs, found by
# that root's own dynamic linker; paths as on the host.
libraries_of() {
    "$cache/root/usr/lib64/ld-linux-x86-64.so.2" --inhibit-cache --library-path "$cache/root/$lib_dir" --list "$1" |
        awk '$2 == "=>" && $3 == "not" { print "missing: " $1 > "/dev/stderr"; exit 1 }
             $2 == "=>" { print $3 } '
}

# add_program ROOT FILE [BASE]: a program of the dom0 root with its libraries, but
# for those that BASE has already.
add_program() {
    local list library base=${3:-$1}
    install -D -m 755 "$cache/root/$2" "$1/$2"
    list=$(libraries_of "$cache/root/$2")
    for library in $list; do
        [ -e "$base/$lib_dir/${library##*/}" ] || install -D -m 755 "$library" "$1/$lib_dir/${library##*/}"
    done
}

# relink FROM TO: a copy that needs our library, first of all: without preloading.
relink() {
    mkdir -p "${2%/*}"
    patchelf --add-needed libxlevent.so.1 --output "$2" "$1"
}

build_dom0_root() {
    local dom0=$1 kernel=$2 root=$cache/root file library
    mkdir -p "$dom0"/{proc,sys,dev,tmp,root,run,etc,host,usr/{bin,sbin,lib64},"$lib_dir",var/{log/xen/console,lib/xen,lib/xenstored}}
    for file in bin sbin lib lib64; do
        ln -s "usr/$file" "$dom0/$file"
    done
    ln -s /run "$dom0/var/run"
    ln -s /run/lock "$dom0/var/lock"

    cp "$root/usr/lib64/ld-linux-x86-64.so.2" "$dom0/usr/lib64/"
    for file in "${dom0_programs[@]}"; do
        add_program "$dom0" "$file"
    done
    for library in "${dom0_libraries[@]}"; do
        # Some are absent from some releases; whatever a program needs is caught above.
        find "$root/$lib_dir" "$root/usr/libexec" -name "$library" 2>/dev/null | while read -r file; do
            cp -L "$file" "$dom0/$lib_dir/"
        done
    done
    # GNU's stdbuf looks for its library where it was installed.
    for file in "$root"/usr/libexec/coreutils; do
        [ ! -d "$file" ] || { mkdir -p "$dom0/usr/libexec" && cp -r "$file" "$dom0/usr/libexec/"; }
    done
    # Xen's programs are found by name, past Debian's wrapper scripts.
    for file in "$dom0/$release_utils"/*; do
        ln -s "/$release_utils/${file##*/}" "$dom0/usr/sbin/${file##*/}"
    done
    relink "$root/$release_utils/xl" "$dom0/usr/lib/relinked/xl"
    cp -r "$root/etc/xen" "$dom0/etc/"
    printf 'root:x:0:0:root:/root:/bin/bash\n' >"$dom0/etc/passwd"
    printf 'root:x:0:\n' >"$dom0/etc/group"
    printf 'PS1="dom0# "\n' >"$dom0/root/.bashrc"

    ln -s dash "$dom0/usr/bin/sh"
    add_busybox "$dom0"
    add_modules "$dom0" "$kernel" "${dom0_modules[@]}"
    install -m 755 "$xenvm/dom0/init" "$dom0/init"
}

build_guest_root() {
    local guest=$1 kernel=$2
    mkdir -p "$guest"/{proc,sys,dev,sbin,usr/bin,usr/sbin}
    ln -s usr/bin "$guest/bin"
    add_busybox "$guest"
    add_modules "$guest" "$kernel" "${guest_modules[@]}"
    install -m 755 "$xenvm/guest/linux-init" "$guest/init"
    # The kernel runs these when the toolstack asks; there is no init to signal.
    printf '#!/bin/sh\nexec busybox poweroff -f\n' >"$guest/sbin/poweroff"
    printf '#!/bin/sh\nexec busybox reboot -f\n' >"$guest/sbin/reboot"
    chmod 755 "$guest"/sbin/*
}

# busybox and a link for each of its commands that isn't there for real.
add_busybox() {
    local command root=$cache/root
    install -m 755 "$root/usr/bin/busybox" "$1/usr/bin/busybox"
    for command in $("$root/usr/bin/busybox" --list); do
        [ -e "$1/usr/bin/$command" ] || [ -e "$1/usr/sbin/$command" ] || [ -L "$1/usr/bin/$command" ] ||
            ln -s busybox "$1/usr/bin/$command"
    done
}

# add_modules ROOT KERNEL MODULE...: into ROOT/modules, numbered in load order.
add_modules() {
    local root=$1 kernel=$2 module file name number=100
    shift 2
    mkdir -p "$root/modules"
    for module; do
        PATH=$PATH:/usr/sbin:/sbin modprobe --show-depends -d "$cache/boot" -S "$kernel" "$module" ||
            die "the kernel has no module $module"
    done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' | while read -r file; do
        name=${file##*/}
        name=${name%%.ko*}
        number=$((number + 1))
        case $file in
            *.xz) xz -dc "$file" ;;
            *.zst) zstd -qdc "$file" ;;
            *) cat "$file" ;;
        esac >"$root/modules/$number-$name.ko"
    done
}

# unpack_kernel BZIMAGE: the ELF file inside, whose place the boot header tells.
unpack_kernel() {
    local setup offset length magic
    setup=$(od -An -tu1 -j $((0x1f1)) -N1 "$1")
    offset=$(od -An -tu4 -j $((0x248)) -N4 "$1")
    length=$(od -An -tu4 -j $((0x24c)) -N4 "$1")
    offset=$(((setup + 1) * 512 + offset))
    magic=$(od -An -tx1 -j $offset -N4 "$1" | tr -d ' ')
    # The last four bytes are the unpacked size, not part of an xz or zstd stream.
    case $magic in
        fd377a58) slice "$1" $offset $((length - 4)) | xz -dc ;;
        28b52ffd) slice "$1" $offset $((length - 4)) | zstd -qdc ;;
        1f8b*) slice "$1" $offset "$length" | zcat ;;
        *) die "unknown compression of $1 ($magic)" ;;
    esac
}

# slice FILE OFFSET LENGTH
slice() { dd if="$1" bs=1M iflag=skip_bytes,count_bytes skip="$2" count="$3" status=none; }

build_mini_guest() {
    gcc -c -o "$1.o" "$xenvm/guest/mini.S"
    # Its one segment is writable and executable by design.
    ld -o "$1" -static -nostdlib -z noexecstack --no-warn-rwx-segments --build-id=none -T "$xenvm/guest/mini.lds" "$1.o"
    rm "$1.o"
}
