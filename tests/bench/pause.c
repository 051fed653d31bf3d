/* An infra container as it is usually written, for scripts/bench to measure ours
   beside: a handler for SIGCHLD with a waitpid loop in it, and a libc. */

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void down(int number) {
    psignal(number, "Shutting down, got signal");
    exit(0);
}

static void reap(int number) {
    (void)number;
    while (waitpid(-1, NULL, WNOHANG) > 0)
        ;
}

static int handle(int number, void (*handler)(int)) {
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_NOCLDSTOP};
    return sigaction(number, &action, NULL);
}

int main(int argc, char **argv) {
    if (argc > 1 && !strcmp(argv[1], "-v"))
        return puts("pause.c") < 0;
    if (getpid() != 1)
        fputs("Warning: pause should be the first process\n", stderr);
    if (handle(SIGINT, down) < 0 || handle(SIGTERM, down) < 0 || handle(SIGCHLD, reap) < 0)
        return 1;
    for (;;)
        pause();
}
