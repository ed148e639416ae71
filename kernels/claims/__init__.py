"""Claims about the kernels: identities of their tilings and gradients, and counts of memory."""
