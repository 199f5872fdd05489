/* A Video4Linux device for tests: preloaded, it answers for the device that V4L2_DEVICE names.

   It behaves as a driver does: it takes a picture 20 times a second by the monotonic clock into the buffers that are
   queued, stamps it, and drops what finds no buffer, also while the process is stopped. BGR, 64 x 48; every pixel holds
   the number of the picture. With V4L2_UNSTAMPED the stamps are 0. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/videodev2.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <time.h>
#include <unistd.h>

enum { WIDTH = 64, HEIGHT = 48, SIZE = WIDTH * HEIGHT * 3, MOST = 32 };
static const long long STEP_NS = 50000000;

static int device = -1, count, streaming, queued[MOST], full[MOST], waiting;
static unsigned char *memory[MOST];
static long long stamps[MOST], next_ns, number;

static long long now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static int oldest(const int *set) {
    int best = -1;
    for (int i = 0; i < count; i++)
        if (set[i] && (best < 0 || stamps[i] < stamps[best])) best = i;
    return best;
}

/* What a driver would have done until now. */
static void expose(void) {
    for (; streaming && next_ns <= now_ns(); next_ns += STEP_NS, number++) {
        int free_buffer = oldest(queued);
        if (free_buffer < 0) continue;
        queued[free_buffer] = 0;
        full[free_buffer] = 1;
        stamps[free_buffer] = next_ns;
        memset(memory[free_buffer], (int)(number & 255), SIZE);
    }
    waiting = oldest(full);
}

static void describe(struct v4l2_format *format) {
    struct v4l2_pix_format *pix = &format->fmt.pix;
    pix->width = WIDTH, pix->height = HEIGHT, pix->pixelformat = V4L2_PIX_FMT_BGR24, pix->field = V4L2_FIELD_NONE;
    pix->bytesperline = WIDTH * 3, pix->sizeimage = SIZE;
}

static int fail(int error) {
    errno = error;
    return -1;
}

static int answer(unsigned long request, void *argument) {
    struct v4l2_buffer *buffer = argument;
    switch (request) {
    case VIDIOC_QUERYCAP:
        ((struct v4l2_capability *)argument)->capabilities = V4L2_CAP_VIDEO_CAPTURE | V4L2_CAP_STREAMING;
        return 0;
    case VIDIOC_G_FMT: case VIDIOC_S_FMT: case VIDIOC_TRY_FMT:
        describe(argument);
        return 0;
    case VIDIOC_G_PARM: case VIDIOC_S_PARM:
        ((struct v4l2_streamparm *)argument)->parm.capture.timeperframe = (struct v4l2_fract){1, 20};
        return 0;
    case VIDIOC_REQBUFS:
        count = (int)((struct v4l2_requestbuffers *)argument)->count;
        memset(queued, 0, sizeof queued), memset(full, 0, sizeof full);
        return 0;
    case VIDIOC_QUERYBUF:
        buffer->length = SIZE, buffer->m.offset = buffer->index * 4096;
        return 0;
    case VIDIOC_QBUF:
        queued[buffer->index] = 1;
        return 0;
    case VIDIOC_DQBUF:
        expose();
        if (waiting < 0) return fail(EAGAIN);
        buffer->index = (unsigned)waiting, buffer->bytesused = SIZE, buffer->length = SIZE;
        buffer->flags = V4L2_BUF_FLAG_TIMESTAMP_MONOTONIC;
        if (!getenv("V4L2_UNSTAMPED")) {
            buffer->timestamp.tv_sec = stamps[waiting] / 1000000000;
            buffer->timestamp.tv_usec = stamps[waiting] % 1000000000 / 1000;
        }
        full[waiting] = 0;
        return 0;
    case VIDIOC_STREAMON:
        streaming = 1, next_ns = now_ns() + STEP_NS;
        return 0;
    case VIDIOC_STREAMOFF:
        streaming = 0;
        return 0;
    default:
        return fail(EINVAL);
    }
}

static void *real(const char *name) { return dlsym(RTLD_NEXT, name); }

static int opens(const char *name, const char *path, int flags, int mode) {
    int opened = ((int (*)(const char *, int, int))real(name))(path, flags, mode);
    if (getenv("V4L2_DEVICE") && !strcmp(path, getenv("V4L2_DEVICE"))) device = opened;
    return opened;
}

int open(const char *path, int flags, ...) {
    va_list list;
    va_start(list, flags);
    int mode = va_arg(list, int);
    va_end(list);
    return opens("open", path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    va_list list;
    va_start(list, flags);
    int mode = va_arg(list, int);
    va_end(list);
    return opens("open64", path, flags, mode);
}

int ioctl(int fd, unsigned long request, ...) {
    va_list list;
    va_start(list, request);
    void *argument = va_arg(list, void *);
    va_end(list);
    if (fd == device && fd >= 0) return answer(request & 0xffffffff, argument);
    return ((int (*)(int, unsigned long, void *))real("ioctl"))(fd, request, argument);
}

static void *maps(const char *name, void *where, size_t length, int protection, int flags, int fd, long offset) {
    void *(*map)(void *, size_t, int, int, int, long) = real(name);
    if (fd < 0 || fd != device) return map(where, length, protection, flags, fd, offset);
    return memory[offset / 4096] = map(where, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

void *mmap(void *where, size_t length, int protection, int flags, int fd, off_t offset) {
    return maps("mmap", where, length, protection, flags, fd, offset);
}

void *mmap64(void *where, size_t length, int protection, int flags, int fd, off64_t offset) {
    return maps("mmap64", where, length, protection, flags, fd, offset);
}

int select(int most, fd_set *reads, fd_set *writes, fd_set *errors, struct timeval *timeout) {
    if (device < 0 || !reads || !FD_ISSET(device, reads))
        return ((int (*)(int, fd_set *, fd_set *, fd_set *, struct timeval *))real("select"))(
            most, reads, writes, errors, timeout);
    long long until_ns = now_ns() + timeout->tv_sec * 1000000000LL + timeout->tv_usec * 1000LL;
    for (expose(); waiting < 0 && now_ns() < until_ns; expose()) usleep(1000);
    return waiting >= 0;
}
