#include "io.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

struct cimfs_worker {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t given, done;
    cimfs_step step;
    void *context;
    uint64_t left; /* steps to do, and the one under way */
    cimfs_hresult result;
    int stopped;
};

static void *work(void *argument)
{
    struct cimfs_worker *worker = argument;
    pthread_mutex_lock(&worker->lock);
    for (;;) {
        while (worker->left == 0 && !worker->stopped)
            pthread_cond_wait(&worker->given, &worker->lock);
        if (worker->stopped)
            break;
        if (worker->result == CIMFS_OK) {
            pthread_mutex_unlock(&worker->lock);
            cimfs_hresult result = worker->step(worker->context);
            pthread_mutex_lock(&worker->lock);
            worker->result = result;
        }
        worker->left--;
        pthread_cond_signal(&worker->done);
    }
    pthread_mutex_unlock(&worker->lock);
    return NULL;
}

static void release(struct cimfs_worker *worker)
{
    pthread_cond_destroy(&worker->done);
    pthread_cond_destroy(&worker->given);
    pthread_mutex_destroy(&worker->lock);
    free(worker);
}

static struct cimfs_worker *posix_start(cimfs_step step, void *context)
{
    sigset_t all, before;
    struct cimfs_worker *worker = calloc(1, sizeof *worker);
    if (!worker)
        return NULL;
    worker->step = step;
    worker->context = context;
    pthread_mutex_init(&worker->lock, NULL);
    pthread_cond_init(&worker->given, NULL);
    pthread_cond_init(&worker->done, NULL);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* a thread begins with its maker's mask */
    int failed = pthread_create(&worker->thread, NULL, work, worker);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failed) {
        release(worker);
        return NULL;
    }
    return worker;
}

static void posix_give(struct cimfs_worker *worker)
{
    pthread_mutex_lock(&worker->lock);
    worker->left++;
    pthread_cond_signal(&worker->given);
    pthread_mutex_unlock(&worker->lock);
}

static cimfs_hresult posix_wait(struct cimfs_worker *worker, uint64_t left)
{
    pthread_mutex_lock(&worker->lock);
    while (worker->left > left)
        pthread_cond_wait(&worker->done, &worker->lock);
    cimfs_hresult result = worker->result;
    pthread_mutex_unlock(&worker->lock);
    return result;
}

static void posix_stop(struct cimfs_worker *worker)
{
    if (!worker)
        return;
    pthread_mutex_lock(&worker->lock);
    worker->stopped = 1;
    pthread_cond_signal(&worker->given);
    pthread_mutex_unlock(&worker->lock);
    pthread_join(worker->thread, NULL);
    release(worker);
}

const struct cimfs_workers cimfs_system_workers = {
    .start = posix_start,
    .give = posix_give,
    .wait = posix_wait,
    .stop = posix_stop,
};
