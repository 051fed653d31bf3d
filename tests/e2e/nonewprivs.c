/* What critest asks of its image nonewprivs: set-user-ID root, it says as whom it
 * runs, which depends on the no_new_privs of its container (prctl(2)). */
#include <stdio.h>
#include <unistd.h>

int main(void)
{
	printf("Effective uid: %d\n", (int)geteuid());
	return 0;
}
