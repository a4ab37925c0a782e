/* Messages as libosip2 reads them. */
#include "stack.h"
#include <osipparser2/osip_parser.h>

static void read_message(char *text, size_t len) {
    static int is_ready;
    osip_message_t *message = NULL;
    if (!is_ready)
        is_ready = parser_init() == 0;
    osip_message_init(&message);
    if (osip_message_parse(message, text, len) != 0 || !message->from || !message->from->url || !message->to) {
        fputc('-', out);
    } else {
        osip_uri_t *uri = message->from->url;
        osip_generic_param_t *tag = NULL;
        osip_generic_param_get_byname(&message->to->gen_params, (char *)"tag", &tag);
        hex(uri->scheme);
        fputc(' ', out);
        hex(uri->username ? uri->username : uri->string);
        fputc(' ', out);
        hex(tag ? tag->gvalue : NULL);
    }
    osip_message_free(message);
}
