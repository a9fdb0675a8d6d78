#!/bin/sh
# The guest's first program (PID 1): prepares the system, takes a job from the host over the virtio-serial port
# "control", runs its command with stdout and stderr to the ports of these names, and reports the exit status on
# "control". Then the host powers the guest off; should the host go away first, so does the guest: PID 1 ends, which
# is a panic, which ends QEMU. What it says itself goes to the console.

PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH
scratch=/dev/scratch

# Over the host's folder, not instead of it: the command's folder may be in there.
writable() {
  mkdir -p "$scratch/$1" "$scratch/$1.work"
  mount -t overlay -o "lowerdir=/$1,upperdir=$scratch/$1,workdir=$scratch/$1.work" overlay "/$1"
}

prepare() {
  mount -t proc proc /proc
  mount -t sysfs sysfs /sys
  mount -t debugfs debugfs /sys/kernel/debug
  mkdir -p /dev/pts /dev/shm "$scratch"
  mount -t devpts devpts /dev/pts
  mount -t tmpfs tmpfs /dev/shm
  mount -t tmpfs tmpfs "$scratch"
  ln -s /proc/self/fd /dev/fd
  ln -s fd/0 /dev/stdin
  ln -s fd/1 /dev/stdout
  ln -s fd/2 /dev/stderr
  mkdir -p "$scratch/home"
  writable tmp
  writable run
  chmod 1777 /tmp /dev/shm
  echo iommufd-vm >/proc/sys/kernel/hostname
  if command -v ip >/dev/null; then ip link set lo up; fi
}

# Waits for a port, which the kernel may add after init has started; says its device.
port() {
  while :; do
    for entry in /sys/class/virtio-ports/*; do
      name=
      read -r name <"$entry/name"
      if [ "$name" = "iommufd.$1" ]; then
        echo "/dev/${entry##*/}"
        return
      fi
    done
    sleep 0.05
  done
}

# Not every host has insmod; Perl can make the system call (finit_module).
load_module() {
  if command -v insmod >/dev/null; then
    insmod "$1"
  else
    perl -e 'open(my $file, "<", $ARGV[0]) or die "$ARGV[0]: $!\n"; my $options = "";
      syscall(313, fileno($file), $options, 0) == 0 or die "$ARGV[0]: $!\n"' "$1"
  fi
}

bind_vfio() {
  echo vfio-pci >"/sys/bus/pci/devices/$1/driver_override"
  # The NVMe disk has a driver by then.
  if [ -e "/sys/bus/pci/devices/$1/driver" ]; then echo "$1" >"/sys/bus/pci/devices/$1/driver/unbind"; fi
  echo "$1" >/sys/bus/pci/drivers_probe
}

mount_share() {
  mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144 "$1" "$2"
  shared="$shared $1"
}

prepare
control_port=$(port control)
stdout_port=$(port stdout)
stderr_port=$(port stderr)
exec 3<>"$control_port"
read -r size <&3
shared=
eval "$(head -c "$size" <&3)"
HOME=$scratch/home
export HOME

# A read ends only when the host has gone. Writes to a port block from then on, hence the trap, which ends them too.
trap 'exit 1' TERM
(
  read -r _ <&3
  kill -s KILL -- -1
  kill -s TERM 1
) &
watch=$!

# The command gets pipes: a port can be opened only once, and a command may well open /dev/stderr again.
mkfifo -m 666 "$scratch/stdout" "$scratch/stderr"
printf '\000%s' "$marker" >"$scratch/marker"
cat "$scratch/stdout" "$scratch/marker" >"$stdout_port" 3>&- &
out=$!
cat "$scratch/stderr" "$scratch/marker" >"$stderr_port" 3>&- &
err=$!

(cd "$folder" && exec "$@") </dev/null >"$scratch/stdout" 2>"$scratch/stderr" 3>&-
status=$?

# What the command left running holds the pipes open and would hold the shares.
for process in /proc/[0-9]*; do
  pid=${process#/proc/}
  case "$pid" in
  1 | "$watch" | "$out" | "$err") ;;
  *) kill -s KILL "$pid" 2>/dev/null ;;
  esac
done
wait "$out" "$err"
for tag in $shared; do umount "$tag"; done
sync
echo "exit $status" >&3
wait "$watch"
