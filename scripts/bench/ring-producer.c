// The producer of the ring figures as a program: for consumers in JavaScript.
// Arguments: fast, slow or pipe.
#include "ring.h"

#include <signal.h>
#include <sys/prctl.h>

int main(int argc, char **argv) {
  // Whoever measures ends first.
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (argc != 2)
    return 1;
  if (strcmp(argv[1], "pipe") == 0)
    produce_pipe();
  else if (strcmp(argv[1], "slow") == 0)
    produce_slowly(map_ring(RING_FD));
  else
    produce(map_ring(RING_FD));
  return 0;
}
