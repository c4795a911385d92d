#include "lab/lab.h"
#include "term/term.h"
int main(int argc, char **argv)
{
        term_start();
        return argc > 2 ? lab_main(argc - 2, argv + 2) : 2;
}
