/* As osip2.c, by sofia-sip. */
#include <sofia-sip/msg.h>
#include <sofia-sip/sip.h>
#include <sofia-sip/sip_header.h>
#include <sofia-sip/sip_parser.h>
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
    while (fread(&len, sizeof len, 1, stdin) == 1) {
        char *text = calloc(1, len + 1);
        if (!text || fread(text, 1, len, stdin) != len)
            return 1;
        msg_t *message = msg_make(sip_default_mclass(), 0, text, len);
        sip_t *sip = message ? sip_object(message) : NULL;
        if (!sip || !sip->sip_request || (sip->sip_flags & MSG_FLG_ERROR) || !sip->sip_from || !sip->sip_to) {
            fputs("-\n", out);
        } else {
            url_t *url = sip->sip_from->a_url;
            hex(url->url_scheme);
            fputc(' ', out);
            hex(url->url_user);
            if (url->url_type == url_tel && url->url_params) {
                hex(";");
                hex(url->url_params);
            }
            fputc(' ', out);
            hex(sip->sip_to->a_tag);
            fputc('\n', out);
        }
        if (message)
            msg_destroy(message);
        free(text);
        fflush(out);
    }
    return 0;
}
