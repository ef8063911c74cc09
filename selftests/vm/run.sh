#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# scripts/vm/run: the exit code, the output, the kernel log, the timeout.

# shellcheck source=selftests/lib.sh
. "$(dirname "$0")/../lib.sh"

run=$top/scripts/vm/run
log=$scratch/kernel.log

one_boot() {
	"$run" --log "$log" --kernel "$1" --share "$scratch:/srv/share" -- sh -c '
		uname -r
		pwd
		echo to stderr >&2
		echo changed > /srv/share/file
		echo changed > /etc/hostname
		head -c 300000 /dev/zero | tr "\0" x
		exit 7' > "$scratch/out" 2> "$scratch/err"
}

for kernel in 6.1 6.12; do
	before=$(cat /etc/hostname)
	check "$kernel: the exit code is passed through" exit_code 7 one_boot $kernel
	check "$kernel: runs that kernel" \
		grep -qxF "$(cat "$top/build/kernels/$kernel/complete")" "$scratch/out"
	check "$kernel: runs in the same directory" grep -qxF "$PWD" "$scratch/out"
	check "$kernel: all of the output arrives" \
		test "$(tail -n 1 "$scratch/out" | tr -d '\n' | wc -c)" = 300000
	check "$kernel: stderr arrives as stderr" grep -qx "to stderr" "$scratch/err"
	check "$kernel: a share is written through" grep -qx changed "$scratch/file"
	check "$kernel: the root is not" test "$(cat /etc/hostname)" = "$before"
	check "$kernel: the kernel log is kept" grep -q "Linux version $kernel" "$log"
done

complain() {
	"$run" --log "$log" -- sh -c 'echo "WARNING: a test of the harness" > /dev/kmsg'
}
check "a complaint in the kernel log is a failure" exit_code 99 complain

crash() {
	"$run" --log "$log" -- sh -c 'echo 1 > /proc/sys/kernel/sysrq; echo c > /proc/sysrq-trigger'
}
check "a crash ends the run" exit_code 99 crash

check "a timeout ends the run" exit_code 124 "$run" --log "$log" --timeout 2 -- sleep 1000
check_fails "a share that is not there" "$run" --share "$scratch/none:/srv" -- true

"$run" --log "$log" -- sleep 1000 2> "$scratch/err" &
harness=$!
at_exit "kill $harness 2> /dev/null"
ended() {
	for _ in $(seq 100); do
		children=$(pgrep -P "$harness" || true)
		[ -n "$children" ] && break
		sleep 0.1
	done
	[ -n "$children" ] || return 1
	kill "$harness"
	wait "$harness"
	for pid in $children; do
		if [ -e "/proc/$pid" ]; then
			return 1
		fi
	done
}
check "an ended harness takes its machine with it" ended

finish
