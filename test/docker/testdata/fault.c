// SPDX-License-Identifier: Apache-2.0
// fault brings a signal upon itself, as a container's first process: what the
// kernel forces on it, for it does not take what it sends itself.
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/statvfs.h>
#include <unistd.h>

static volatile int zero;

int main(int argc, char **argv)
{
	const char *how = argc > 1 ? argv[1] : "";

	if (!strcmp(how, "segv"))
		*(volatile int *)zero = 1;
	if (!strcmp(how, "fpe"))
		return 7 / zero;
	if (!strcmp(how, "ill"))
		__builtin_trap();
	if (!strcmp(how, "bus")) { /* a file larger than /dev/shm, which is full for a while */
		int fd = open("/dev/shm/x", O_RDWR | O_CREAT, 0600);
		size_t size = 256 << 20;
		struct statvfs shm;
		char *p;

		if (fd < 0 || ftruncate(fd, size) || fstatvfs(fd, &shm))
			return 2;
		p = mmap(0, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		memset(p, 1, shm.f_bavail * shm.f_bsize);
		sleep(2);
		memset(p, 1, size);
	}
	if (!strcmp(how, "sys")) {
		struct sock_filter code[] = {
			BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
		};
		struct sock_fprog filter = { 1, code };

		prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
		prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter);
		getppid();
	}
	return 2;
}
