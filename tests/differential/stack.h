/* The loop of both programs. It reads messages from standard input, each after its length (4 bytes, little endian),
 * and prints a line for each: `-` if the stack refuses the message, otherwise scheme and user part of From and the
 * tag of To, in hex and with a blank between them. A missing text is empty. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static FILE *out;

static void hex(const char *text) {
    for (; text && *text; text++)
        fprintf(out, "%02x", (unsigned char)*text);
}

/* Prints what the stack reads in a message, without the line end. */
static void read_message(char *text, size_t len);

int main(void) {
    uint32_t len;
    out = fdopen(dup(1), "w");
    /* The libraries log to standard output. */
    if (!out || !freopen("/dev/null", "w", stdout))
        return 1;
    while (fread(&len, sizeof len, 1, stdin) == 1) {
        char *text = calloc(1, len + 1);
        if (!text || fread(text, 1, len, stdin) != len)
            return 1;
        read_message(text, len);
        free(text);
        fputc('\n', out);
        fflush(out);
    }
    return 0;
}
