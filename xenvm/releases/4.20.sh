# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash disable=SC2034
# Xen 4.20, as Debian 13 has it: the names of one release, and nothing else.

release_suite=trixie
release_hypervisor_package=xen-hypervisor-4.20-amd64
release_hypervisor=boot/xen-4.20-amd64.gz
release_kernel_package=linux-image-amd64
# Xen's programs (xl, xenstored ...) lie here, inside the dom0 root.
release_utils=usr/lib/xen-4.20/bin
# With all that these depend on, they make the dom0 root.
release_dom0_packages=(
    base-files libc6 libgcc-s1 bash dash coreutils util-linux mount bsdutils grep
    busybox-static xen-utils-4.20 xen-utils-common xenstore-utils
)
# What the scenario `libvirt` adds to it.
release_libvirt_packages=(libvirt-daemon libvirt-daemon-driver-xen libvirt-clients)
# Programs for dom0 are built with the headers and libraries of these.
release_sysroot_packages=(base-files libc6-dev libxen-dev)
