#!/bin/sh
# Runs in the guest of `npm run vm -- --dump-tables FILE`, started by the command through $IOMMUFD_VM_DUMP_TABLES: sends
# the host what Linux shows of the VT-d unit and its tables, and waits until the host has read the tables themselves.

debugfs=/sys/kernel/debug/iommu/intel

port() {
  for entry in /sys/class/virtio-ports/*; do
    name=
    read -r name <"$entry/name"
    if [ "$name" = iommufd.tables ]; then
      echo "/dev/${entry##*/}"
      return
    fi
  done
}

files() {
  # Byte 36 of the DMAR table: host address width - 1.
  printf '=== dmar_width\n'
  od -An -tu1 -j36 -N1 /sys/firmware/acpi/tables/DMAR
  cd "$debugfs" || exit 1
  find . -name '*_struct' -o -name iommu_regset | while read -r file; do
    printf '=== %s\n' "${file#./}"
    cat "$file"
  done
}

if [ ! -d "$debugfs" ]; then
  echo 'dump-tables: Linux does not use a VT-d unit' >&2
  exit 1
fi
text=$(files) || exit 1
exec 3<>"$(port)"
printf '%s\n%s' "${#text}" "$text" >&3
read -r answer <&3
if [ -n "$answer" ]; then
  echo "dump-tables: $answer" >&2
  exit 1
fi
