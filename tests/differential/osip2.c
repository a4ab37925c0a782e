/* Reads messages from standard input, each after its length (4 bytes, little endian), and prints for each a
 * line of what libosip2 reads: `-` if it refuses the message, otherwise scheme and user part of From and the tag
 * of To, in hex and with a blank between them. A missing text is empty. */
#include <osipparser2/osip_parser.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static FILE *out;

static void hex(const char *text) {
    for (; text && *text; text++)
        fprintf(out, "%02x", (unsigned char)*text);
}

int main(void) {
    uint32_t len;
    out = fdopen(dup(1), "w");
    /* The library logs to standard output. */
    if (!out || !freopen("/dev/null", "w", stdout))
        return 1;
    parser_init();
    while (fread(&len, sizeof len, 1, stdin) == 1) {
        char *text = calloc(1, len + 1);
        if (!text || fread(text, 1, len, stdin) != len)
            return 1;
        osip_message_t *message = NULL;
        osip_message_init(&message);
        if (osip_message_parse(message, text, len) != 0 || !message->from || !message->from->url || !message->to) {
            fputs("-\n", out);
        } else {
            osip_uri_t *uri = message->from->url;
            osip_generic_param_t *tag = NULL;
            osip_generic_param_get_byname(&message->to->gen_params, (char *)"tag", &tag);
            hex(uri->scheme);
            fputc(' ', out);
            hex(uri->username ? uri->username : uri->string);
            fputc(' ', out);
            hex(tag ? tag->gvalue : NULL);
            fputc('\n', out);
        }
        osip_message_free(message);
        free(text);
        fflush(out);
    }
    return 0;
}
