/* Messages as sofia-sip reads them. */
#include "stack.h"
#include <sofia-sip/msg.h>
#include <sofia-sip/sip.h>
#include <sofia-sip/sip_header.h>
#include <sofia-sip/sip_parser.h>

static void read_message(char *text, size_t len) {
    msg_t *message = msg_make(sip_default_mclass(), 0, text, len);
    sip_t *sip = message ? sip_object(message) : NULL;
    if (!sip || !sip->sip_request || (sip->sip_flags & MSG_FLG_ERROR) || !sip->sip_from || !sip->sip_to) {
        fputc('-', out);
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
    }
    if (message)
        msg_destroy(message);
}
