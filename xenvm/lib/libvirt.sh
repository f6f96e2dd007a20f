# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
# libvirt: its daemon, its driver for Xen and its client, to be unpacked over
# dom0's file system by the scenario that wants them.  They are three times as
# large as all the rest, and every boot would have to unpack them.
#
# Of the daemon's drivers only the one for Xen comes along: those for networks,
# storage and others are optional, and would only look for what is not there.

libvirt_driver=$lib_dir/libvirt/connection-driver/libvirt_driver_libxl.so
libvirt_programs=(usr/sbin/libvirtd usr/bin/virsh "$libvirt_driver")

# build_libvirt_root DIRECTORY DOM0: DOM0 is what it will be unpacked over.
build_libvirt_root() {
    local to=$1 file
    for file in "${libvirt_programs[@]}"; do
        add_program "$to" "$file" "$2"
    done
    # The driver describes the host's processor with these.
    mkdir -p "$to/usr/share/libvirt"
    cp -r "$cache/root/usr/share/libvirt/cpu_map" "$to/usr/share/libvirt/"
    relink "$cache/root/usr/sbin/libvirtd" "$to/usr/lib/relinked/libvirtd"
    relink "$cache/root/$libvirt_driver" "$to/usr/lib/relinked/${libvirt_driver##*/}"
}
