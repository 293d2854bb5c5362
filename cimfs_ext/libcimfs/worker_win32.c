#ifdef _WIN32

#include "io.h"

#include <stdlib.h>

#include <windows.h>

struct cimfs_worker {
    HANDLE thread;
    SRWLOCK lock;
    CONDITION_VARIABLE given, done;
    cimfs_step step;
    void *context;
    uint64_t left; /* steps to do, and the one under way */
    cimfs_hresult result;
    int stopped;
};

static DWORD WINAPI work(void *argument)
{
    struct cimfs_worker *worker = argument;
    AcquireSRWLockExclusive(&worker->lock);
    for (;;) {
        while (worker->left == 0 && !worker->stopped)
            SleepConditionVariableSRW(&worker->given, &worker->lock, INFINITE, 0);
        if (worker->stopped)
            break;
        if (worker->result == CIMFS_OK) {
            ReleaseSRWLockExclusive(&worker->lock);
            cimfs_hresult result = worker->step(worker->context);
            AcquireSRWLockExclusive(&worker->lock);
            worker->result = result;
        }
        worker->left--;
        WakeConditionVariable(&worker->done);
    }
    ReleaseSRWLockExclusive(&worker->lock);
    return 0;
}

static struct cimfs_worker *win32_start(cimfs_step step, void *context)
{
    struct cimfs_worker *worker = calloc(1, sizeof *worker);
    if (!worker)
        return NULL;
    worker->step = step;
    worker->context = context;
    InitializeSRWLock(&worker->lock);
    InitializeConditionVariable(&worker->given);
    InitializeConditionVariable(&worker->done);
    worker->thread = CreateThread(NULL, 0, work, worker, 0, NULL);
    if (!worker->thread) {
        free(worker);
        return NULL;
    }
    return worker;
}

static void win32_give(struct cimfs_worker *worker)
{
    AcquireSRWLockExclusive(&worker->lock);
    worker->left++;
    WakeConditionVariable(&worker->given);
    ReleaseSRWLockExclusive(&worker->lock);
}

static cimfs_hresult win32_wait(struct cimfs_worker *worker, uint64_t left)
{
    AcquireSRWLockExclusive(&worker->lock);
    while (worker->left > left)
        SleepConditionVariableSRW(&worker->done, &worker->lock, INFINITE, 0);
    cimfs_hresult result = worker->result;
    ReleaseSRWLockExclusive(&worker->lock);
    return result;
}

static void win32_stop(struct cimfs_worker *worker)
{
    if (!worker)
        return;
    AcquireSRWLockExclusive(&worker->lock);
    worker->stopped = 1;
    WakeConditionVariable(&worker->given);
    ReleaseSRWLockExclusive(&worker->lock);
    WaitForSingleObject(worker->thread, INFINITE);
    CloseHandle(worker->thread);
    free(worker);
}

const struct cimfs_workers cimfs_system_workers = {
    .start = win32_start,
    .give = win32_give,
    .wait = win32_wait,
    .stop = win32_stop,
};

#endif
