# SPDX-License-Identifier: Apache-2.0
# What the containers ran whose logs these are, as /bin/sh of busybox.
echo one; echo "two ü €" >&2; busybox=/bin/busybox; $busybox head -c 40000 /dev/zero | $busybox tr '\0' y; echo; echo; printf '\033[31mred\033[0m "quoted" \\ <tag>\n'; printf 'bad \377 byte\n'; printf 'no end'
