/* blast: a C-STORE sender that costs less than any receiver, so that the receiver is what is measured.
 *
 *   blast PORT CALLED_AE CALLING_AE ASSOCIATIONS PASSES held|released|each MARKER FIRST_STAMP FILE...
 *
 * Part 10 files are read into memory first. Each association has a thread and a share of the files, which it sends
 * PASSES times, every instance answered before the next one is sent.
 *
 * Receivers know what they have seen: wherever the digits MARKER stand in the UIDs of a file, pass p writes the number
 * FIRST_STAMP + p of the same length.
 *
 * When all is answered, a line of JSON goes to standard output. Then "held" keeps the associations open until standard
 * input ends, so that the receiver's processes can be looked at while they live; "released" ends each when its share is
 * sent, for receivers that serve one at a time; "each" opens and ends one for every image. The clock runs from before
 * the first connection to the last answer. Exit code 3: an association broke, was refused, or lacks a context.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { UID_BYTES = 65, MOST_CONTEXTS = 128, MOST_PLACES = 64, HEADER_BYTES = 12, SEARCHED_BYTES = 1 << 16 };
enum { LARGEST_PDU = 1 << 20, USUAL_PDU = 1 << 17, LARGEST_ANSWER = 1 << 16, ANSWER_TIMEOUT_S = 120 };
enum { ASSOCIATE_RQ = 1, ASSOCIATE_AC = 2, P_DATA = 4, RELEASE_RQ = 5, RELEASE_RP = 6 }; /* PS3.8 9.3 */
enum { C_STORE_RSP = 0x8001, COMMAND_LAST = 3, DATA_LAST = 2, DATA_MORE = 0 };           /* PS3.7 E.1, PS3.8 E.2 */

typedef unsigned char byte;

typedef struct {
    byte *content, *data_set;
    size_t length, places;
    byte *place[MOST_PLACES]; /* where the marker stands */
    char sop_class[UID_BYTES], sop_instance[UID_BYTES], syntax[UID_BYTES];
    int context;
} Object;

typedef struct {
    int socket;
    size_t fragment;       /* bytes of the data set in one PDU */
    struct iovec *pieces;  /* of one instance: command, then header and fragment by turns */
    byte *headers;
    unsigned message;
} Association;

typedef struct { int first, end; Association association; } Share;

static Object *objects;
static char contexts[MOST_CONTEXTS][2][UID_BYTES]; /* SOP class, transfer syntax */
static int object_count, context_count, port, passes;
static enum { HELD, RELEASED, EACH } ending;
static const char *called_ae, *calling_ae, *marker;
static unsigned long long first_stamp;
static double *latency_s;
static long refused;
static pthread_barrier_t start, end;

static void fail(const char *what) { fprintf(stderr, "blast: %s\n", what); exit(3); }
static void fail_errno(const char *what) { fprintf(stderr, "blast: %s: %s\n", what, strerror(errno)); exit(3); }

static double now_s(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec * 1e-9;
}

static void *room(size_t count, size_t size) {
    void *memory = calloc(count, size);
    if (!memory) fail("out of memory");
    return memory;
}

/* Numbers: PDUs are big endian (PS3.8 9.3.1), commands and file meta information little endian. */

static void put_be32(byte *at, uint32_t value) { value = htonl(value); memcpy(at, &value, 4); }
static uint32_t be32(const byte *at) { return (uint32_t)at[0] << 24 | at[1] << 16 | at[2] << 8 | at[3]; }
static uint32_t le32(const byte *at) { return (uint32_t)at[3] << 24 | at[2] << 16 | at[1] << 8 | at[0]; }
static unsigned le16(const byte *at) { return at[0] | at[1] << 8; }
static unsigned be16(const byte *at) { return at[0] << 8 | at[1]; }

/* Files */

static void read_file(Object *object, const char *path) {
    FILE *file = fopen(path, "rb");
    if (!file) fail_errno(path);
    fseek(file, 0, SEEK_END);
    object->length = ftell(file);
    rewind(file);
    object->content = room(object->length + 1, 1);
    if (fread(object->content, 1, object->length, file) != object->length) fail_errno(path);
    fclose(file);
    if (object->length < 144 || memcmp(object->content + 128, "DICM", 4)) fail("a file is no Part 10 file");
}

static void keep_uid(char *uid, const byte *value, size_t length) {
    if (length >= UID_BYTES) fail("a UID is longer than 64 characters");
    memcpy(uid, value, length);
    uid[length] = 0; /* a padding NUL ends it early */
}

static void read_meta(Object *object) {
    byte *at = object->content + 132, *limit = object->content + object->length;
    while (at + 12 <= limit && le16(at) == 0x0002) {
        int is_long = !memcmp(at + 4, "OB", 2);
        size_t length = is_long ? le32(at + 8) : le16(at + 6);
        byte *value = at + (is_long ? 12 : 8);
        if (value + length > limit) fail("a file ends within its meta information");
        switch (le16(at + 2)) {
        case 0x0002: keep_uid(object->sop_class, value, length); break;
        case 0x0003: keep_uid(object->sop_instance, value, length); break;
        case 0x0010: keep_uid(object->syntax, value, length); break;
        }
        at = value + length;
    }
    object->data_set = at;
    object->length = limit - at;
}

static void find_marker(Object *object) {
    size_t searched = object->length < SEARCHED_BYTES ? object->length : SEARCHED_BYTES, length = strlen(marker);
    byte *at = object->data_set, *limit = object->data_set + searched;
    while ((at = memmem(at, limit - at, marker, length))) {
        if (object->places == MOST_PLACES) fail("the marker stands too often in a file");
        object->place[object->places++] = at;
        at += length;
    }
    char *in_uid = strstr(object->sop_instance, marker);
    if (!in_uid || !object->places) fail("the marker does not stand in a file's UIDs");
    object->place[object->places++] = (byte *)in_uid;
}

static void choose_context(Object *object) {
    int number = 0;
    while (number < context_count &&
           (strcmp(contexts[number][0], object->sop_class) || strcmp(contexts[number][1], object->syntax))) number++;
    if (number == MOST_CONTEXTS) fail("more than 128 presentation contexts are needed");
    if (number == context_count) {
        strcpy(contexts[number][0], object->sop_class);
        strcpy(contexts[number][1], object->syntax);
        context_count++;
    }
    object->context = 2 * number + 1;
}

static void stamp(Object *object, int pass) {
    char digits[32];
    size_t length = strlen(marker);
    snprintf(digits, sizeof digits, "%0*llu", (int)length, first_stamp + pass);
    for (size_t place = 0; place < object->places; place++) memcpy(object->place[place], digits, length);
}

/* The socket */

static void send_pieces(int socket, struct iovec *piece, size_t count) {
    while (count) {
        ssize_t sent = writev(socket, piece, count > 1024 ? 1024 : count);
        if (sent < 0 && errno == EINTR) continue;
        if (sent < 0) fail_errno("the receiver takes no more");
        for (; count && (size_t)sent >= piece->iov_len; piece++, count--) sent -= piece->iov_len;
        if (count) {
            piece->iov_base = (byte *)piece->iov_base + sent;
            piece->iov_len -= sent;
        }
    }
}

static void send_bytes(int socket, byte *from, size_t length) {
    struct iovec piece = {from, length};
    send_pieces(socket, &piece, 1);
}

static void receive(int socket, byte *to, size_t length) {
    while (length) {
        ssize_t got = recv(socket, to, length, MSG_WAITALL);
        if (got == 0) fail("the receiver closed the connection");
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) fail_errno("no answer");
        to += got;
        length -= got;
    }
}

static size_t receive_pdu(int socket, byte *body, int expected) {
    byte header[6];
    receive(socket, header, sizeof header);
    size_t length = be32(header + 2);
    if (length > LARGEST_ANSWER) fail("an answer is larger than any should be");
    receive(socket, body, length);
    if (header[0] != expected) {
        fprintf(stderr, "blast: PDU type %d came where %d was expected\n", header[0], expected);
        exit(3);
    }
    return length;
}

/* Association establishment (PS3.8 9.3.2, 9.3.3) */

static byte *item(byte *at, int type, const void *value, size_t length) {
    at[0] = type;
    at[1] = 0;
    at[2] = length >> 8;
    at[3] = length;
    memcpy(at + 4, value, length);
    return at + 4 + length;
}

static byte *text_item(byte *at, int type, const char *text) { return item(at, type, text, strlen(text)); }

static byte *proposal(byte *at, int number) {
    byte inner[4 + 2 * (4 + UID_BYTES)] = {2 * number + 1}, *limit = inner + 4;
    limit = text_item(limit, 0x30, contexts[number][0]);
    limit = text_item(limit, 0x40, contexts[number][1]);
    return item(at, 0x20, inner, limit - inner);
}

static byte *user_information(byte *at) {
    byte inner[256], largest[4], *limit = inner;
    put_be32(largest, USUAL_PDU);
    limit = item(limit, 0x51, largest, 4);
    limit = text_item(limit, 0x52, "2.25.131902684016350198423170514207690144521");
    limit = text_item(limit, 0x55, "BLAST");
    return item(at, 0x50, inner, limit - inner);
}

static void request_association(int socket) {
    byte pdu[6 + 68 + 1024 + MOST_CONTEXTS * 160] = {ASSOCIATE_RQ}, *at = pdu + 6;
    at[1] = 1;
    memset(at + 4, ' ', 32);
    memcpy(at + 4, called_ae, strlen(called_ae));
    memcpy(at + 20, calling_ae, strlen(calling_ae));
    at = text_item(at + 68, 0x10, "1.2.840.10008.3.1.1.1");
    for (int number = 0; number < context_count; number++) at = proposal(at, number);
    at = user_information(at);
    put_be32(pdu + 2, at - pdu - 6);
    send_bytes(socket, pdu, at - pdu);
}

/* The largest PDU that the receiver takes, by its answer; ends us where it refused a context. */
static size_t read_acceptance(const byte *body, size_t length) {
    size_t largest = 0;
    int accepted = 0;
    for (const byte *at = body + 68; at + 4 <= body + length; at += 4 + be16(at + 2)) {
        if (at[0] == 0x21 && at[6] == 0) accepted++;
        if (at[0] != 0x50) continue;
        for (const byte *sub = at + 4; sub < at + 4 + be16(at + 2); sub += 4 + be16(sub + 2))
            if (sub[0] == 0x51) largest = be32(sub + 4);
    }
    if (accepted < context_count) fail("a presentation context was refused");
    return largest == 0 ? USUAL_PDU : largest > LARGEST_PDU ? LARGEST_PDU : largest;
}

static int connect_to_receiver(void) {
    int connection = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct timeval patience = {ANSWER_TIMEOUT_S, 0};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connection < 0 || connect(connection, (struct sockaddr *)&address, sizeof address)) fail_errno("no connection");
    setsockopt(connection, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(connection, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    return connection;
}

static void open_association(Association *association, size_t largest_object) {
    static __thread byte body[LARGEST_ANSWER];
    association->socket = connect_to_receiver();
    request_association(association->socket);
    size_t length = receive_pdu(association->socket, body, ASSOCIATE_AC);
    association->fragment = (read_acceptance(body, length) - 6) & ~(size_t)1;
    size_t fragments = largest_object / association->fragment + 2;
    association->pieces = room(2 * fragments + 1, sizeof(struct iovec));
    association->headers = room(fragments, HEADER_BYTES);
}

static void release_association(Association *association) {
    byte request[10] = {RELEASE_RQ, 0, 0, 0, 0, 4}, body[LARGEST_ANSWER];
    send_bytes(association->socket, request, sizeof request);
    receive_pdu(association->socket, body, RELEASE_RP);
    close(association->socket);
    free(association->pieces);
    free(association->headers);
}

/* C-STORE (PS3.7 9.3.1) */

static byte *element(byte *at, unsigned number, const void *value, size_t length) {
    size_t padded = length + (length & 1);
    byte header[8] = {0, 0, number, number >> 8, padded, padded >> 8, 0, 0};
    memcpy(at, header, 8);
    memcpy(at + 8, value, length);
    if (padded > length) at[8 + length] = 0;
    return at + 8 + padded;
}

static byte *number_element(byte *at, unsigned number, unsigned value) {
    return element(at, number, (byte[]){value, value >> 8}, 2);
}

static void put_header(byte *at, size_t length, int context, int control) {
    at[0] = P_DATA;
    at[1] = 0;
    put_be32(at + 2, length + 6);
    put_be32(at + 6, length + 2);
    at[10] = context;
    at[11] = control;
}

static size_t store_request(byte *pdu, const Object *object, unsigned message) {
    byte *group = pdu + HEADER_BYTES, *body = group + 12, *at = body;
    at = element(at, 0x0002, object->sop_class, strlen(object->sop_class));
    at = number_element(at, 0x0100, 0x0001);
    at = number_element(at, 0x0110, message);
    at = number_element(at, 0x0700, 0x0000);
    at = number_element(at, 0x0800, 0x0001);
    at = element(at, 0x1000, object->sop_instance, strlen(object->sop_instance));
    uint32_t length = at - body;
    element(group, 0x0000, (byte[]){length, length >> 8, 0, 0}, 4);
    put_header(pdu, at - group, object->context, COMMAND_LAST);
    return at - pdu;
}

static size_t data_set_pieces(Association *association, const Object *object) {
    struct iovec *piece = association->pieces + 1;
    byte *header = association->headers;
    for (size_t sent = 0; sent < object->length; header += HEADER_BYTES) {
        size_t left = object->length - sent, length = left < association->fragment ? left : association->fragment;
        put_header(header, length, object->context, length == left ? DATA_LAST : DATA_MORE);
        *piece++ = (struct iovec){header, HEADER_BYTES};
        *piece++ = (struct iovec){object->data_set + sent, length};
        sent += length;
    }
    return piece - association->pieces;
}

static int answered_status(int socket) {
    byte body[LARGEST_ANSWER];
    size_t length = receive_pdu(socket, body, P_DATA);
    int field = 0, status = -1;
    for (byte *at = body + 6; at + 8 <= body + length; at += 8 + le32(at + 4)) {
        if (le16(at + 2) == 0x0100) field = le16(at + 8);
        if (le16(at + 2) == 0x0900) status = le16(at + 8);
    }
    if (field != C_STORE_RSP) fail("an answer is no C-STORE-RSP");
    return status;
}

static double store(Association *association, const Object *object) {
    byte command[HEADER_BYTES + 256];
    double started = now_s();
    association->message = association->message % 65535 + 1;
    association->pieces[0] = (struct iovec){command, store_request(command, object, association->message)};
    size_t count = data_set_pieces(association, object);
    send_pieces(association->socket, association->pieces, count);
    if (answered_status(association->socket) != 0) __sync_fetch_and_add(&refused, 1);
    return now_s() - started;
}

/* Threads */

static size_t largest_of(const Share *share) {
    size_t largest = 0;
    for (int index = share->first; index < share->end; index++)
        if (objects[index].length > largest) largest = objects[index].length;
    return largest;
}

static void *send_share(void *argument) {
    Share *share = argument;
    Association *association = &share->association;
    size_t largest = largest_of(share);
    pthread_barrier_wait(&start);
    if (ending != EACH) open_association(association, largest);
    for (int pass = 0; pass < passes; pass++)
        for (int index = share->first; index < share->end; index++) {
            double began = now_s();
            stamp(&objects[index], pass);
            if (ending == EACH) open_association(association, largest);
            store(association, &objects[index]);
            if (ending == EACH) release_association(association);
            latency_s[pass * object_count + index] = now_s() - began;
        }
    if (ending == RELEASED) release_association(association);
    pthread_barrier_wait(&end);
    return NULL;
}

static int ascending(const void *one, const void *other) {
    double a = *(const double *)one, b = *(const double *)other;
    return (a > b) - (a < b);
}

static double cpu_s(void) {
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return used.ru_utime.tv_sec + used.ru_stime.tv_sec + (used.ru_utime.tv_usec + used.ru_stime.tv_usec) * 1e-6;
}

static void report(double seconds, double cpu) {
    size_t bytes = 0, count = (size_t)object_count * passes;
    for (int index = 0; index < object_count; index++) bytes += objects[index].length * passes;
    qsort(latency_s, count, sizeof *latency_s, ascending);
    printf("{\"instances\": %zu, \"bytes\": %zu, \"seconds\": %.6f, \"cpu_s\": %.6f, \"refused\": %ld, "
           "\"p50_ms\": %.4f, \"p99_ms\": %.4f, \"max_ms\": %.4f}\n",
           count, bytes, seconds, cpu, refused, latency_s[count / 2] * 1e3, latency_s[count * 99 / 100] * 1e3,
           latency_s[count - 1] * 1e3);
    fflush(stdout);
}

int main(int count, char **argument) {
    if (count < 10) { fprintf(stderr, "usage: see the head of blast.c\n"); return 2; }
    port = atoi(argument[1]);
    called_ae = argument[2];
    calling_ae = argument[3];
    int associations = atoi(argument[4]);
    passes = atoi(argument[5]);
    ending = !strcmp(argument[6], "each") ? EACH : !strcmp(argument[6], "released") ? RELEASED : HELD;
    marker = argument[7];
    first_stamp = strtoull(argument[8], NULL, 10);
    object_count = count - 9;
    objects = room(object_count, sizeof *objects);
    latency_s = room((size_t)object_count * passes, sizeof *latency_s);
    for (int index = 0; index < object_count; index++) {
        read_file(&objects[index], argument[9 + index]);
        read_meta(&objects[index]);
        find_marker(&objects[index]);
        choose_context(&objects[index]);
    }
    Share *shares = room(associations, sizeof *shares);
    pthread_t thread;
    pthread_barrier_init(&start, NULL, associations + 1);
    pthread_barrier_init(&end, NULL, associations + 1);
    for (int number = 0; number < associations; number++) {
        shares[number].first = (long)object_count * number / associations;
        shares[number].end = (long)object_count * (number + 1) / associations;
        if (pthread_create(&thread, NULL, send_share, &shares[number])) fail("no thread");
    }
    double cpu_before = cpu_s(), started = now_s();
    pthread_barrier_wait(&start);
    pthread_barrier_wait(&end);
    report(now_s() - started, cpu_s() - cpu_before);
    while (getchar() != EOF) {}
    for (int number = 0; number < associations && ending == HELD; number++)
        release_association(&shares[number].association);
    return 0;
}
