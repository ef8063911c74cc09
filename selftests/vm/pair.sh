#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Two machines: scripts/vm/pair, exec, stop and with-pair.

# shellcheck source=selftests/lib.sh
. "$(dirname "$0")/../lib.sh"

vm=$top/scripts/vm
name=selftest.$$
logs=$scratch/log

at_exit "[ ! -d '$top/build/vm/$name' ] || '$vm/stop' --name $name --log '$logs'"

check "a pair of two kernels boots" "$vm/pair" --name "$name" --kernel-a 6.1 \
	--kernel-b 6.12 --share "$scratch:/srv/share" --log "$logs"

on() {
	side=$1
	shift
	"$vm/exec" --name "$name" "$side" -- "$@"
}

is() {
	[ "$("$@")" = "$expected" ]
}

expected=$(cat "$top/build/kernels/6.1/complete")
check "vm-a runs 6.1" is on a uname -r
expected=$(cat "$top/build/kernels/6.12/complete")
check "vm-b runs 6.12" is on b uname -r
check "vm-a reaches vm-b" on a busybox ping -c 2 vm-b
check "vm-b reaches vm-a" on b busybox ping -c 2 vm-a
check "an exit code comes back" exit_code 42 on b sh -c 'exit 42'
check "a command that is not there" exit_code 127 on b /no/such/command

on a sh -c 'echo from-a > /srv/share/token'
expected=from-a
check "what one writes to a share the other reads" is on b cat /srv/share/token

# Each waits for the others: only commands that run at once end.
parallel() {
	pids=
	for i in 1 2 3 4 5; do
		on a sh -c ": > /tmp/here.$i
			while [ \$(ls /tmp/here.* | wc -l) -lt 5 ]; do sleep 0.05; done" &
		pids="$pids $!"
	done
	for pid in $pids; do
		wait "$pid" || return 1
	done
}
check "commands run in parallel" parallel

left_behind() {
	on a sh -c 'sleep 1000 > /dev/null 2>&1 & echo $!' > "$scratch/pid"
	on a test -d "/proc/$(cat "$scratch/pid")"
}
check "a command may leave a process behind" left_behind

interrupted() {
	"$vm/exec" --name "$name" --timeout 1 a -- sh -c 'echo $$ > /tmp/slow; sleep 1000'
	[ $? = 124 ] || return 1
	pid=$(on a cat /tmp/slow)
	for _ in $(seq 50); do
		on a test -d "/proc/$pid" || return 0
		sleep 0.1
	done
	return 1
}
check "a command that is given up is ended" interrupted

check_fails "a second pair of that name" "$vm/pair" --name "$name" --log "$logs"
check "it is stopped" "$vm/stop" --name "$name" --log "$logs"
check_fails "it is gone" on a true
check "its logs are kept" grep -q 'Linux version 6.12' "$logs-b.log"

# shellcheck disable=SC2016
check "with-pair gives a script two machines" exit_code 3 "$vm/with-pair" --log "$logs" \
	-- sh -c '"$VM_EXEC" a -- busybox ping -c 1 vm-b || exit 1; exit 3'
# shellcheck disable=SC2016
check "a complaint of one kernel is a failure" exit_code 99 "$vm/with-pair" \
	--log "$logs" -- sh -c '"$VM_EXEC" b -- sh -c "echo BUG: test > /dev/kmsg"'

finish
