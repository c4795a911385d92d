/* Who may be signalled: only the process whose pid and start time were written down, and what it
 * left in its own session. Strangers, reused pids and damaged files are left alone. Includes its
 * subject; processes are children of the test. */
#include "lab/lab_process.c"

#include <setjmp.h>
#include <stdarg.h>
#include <sys/stat.h>

#include <cmocka.h>

static struct lab lab;
static const struct lab_region region = {.name = "us-east", .address = "127.98.0.2"};

/* What lab.c gives to the rest. */
bool lab_error(const char *format, ...)
{
        (void)format;
        return false;
}

bool lab_path(char *path, const char *format, ...)
{
        va_list args;
        va_start(args, format);
        int len = vsnprintf(path, LAB_PATH_MAX, format, args);
        va_end(args);
        return len < LAB_PATH_MAX;
}

static void file_make(const char *name, const char *text)
{
        char path[LAB_PATH_MAX];
        assert_true(lab_path(path, "%s/us-east/run/%s.pid", lab.dir, name));
        FILE *file = fopen(path, "w");
        assert_non_null(file);
        fputs(text, file);
        fclose(file);
}

static int setup(void **state)
{
        static const char *const dirs[] = {"", "/us-east", "/us-east/run", "/us-east/log"};
        char path[LAB_PATH_MAX];
        char folder[] = "/tmp/meridian-test-lab-XXXXXX";
        (void)state;
        if (mkdtemp(folder) == NULL)
                return -1;
        snprintf(lab.dir, sizeof lab.dir, "%s", folder);
        snprintf(lab.programs[LAB_REDIS], LAB_PATH_MAX, "/bin/sleep");
        for (size_t i = 1; i < COUNT_OF(dirs); i++) {
                if (!lab_path(path, "%s%s", lab.dir, dirs[i]) || mkdir(path, 0755) != 0)
                        return -1;
        }
        return 0;
}

static int teardown(void **state)
{
        static const char *const files[] = {"/us-east/run/redis.pid",
                                            "/us-east/log/redis.log",
                                            "/us-east/run",
                                            "/us-east/log",
                                            "/us-east",
                                            ""};
        char path[LAB_PATH_MAX];
        (void)state;
        for (size_t i = 0; i < COUNT_OF(files); i++) {
                if (lab_path(path, "%s%s", lab.dir, files[i]))
                        (void)remove(path);
        }
        return access(lab.dir, F_OK) == 0 ? -1 : 0;
}

/* A child that sleeps in a session of its own. */
static pid_t stranger_start(void)
{
        pid_t pid = fork();
        if (pid == 0) {
                setsid();
                execl("/bin/sleep", "sleep", "60", (char *)NULL);
                _exit(127);
        }
        assert_true(pid > 0);
        return pid;
}

static void stranger_end(pid_t pid)
{
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
}

static void nothing_is_noted(void **state)
{
        (void)state;
        assert_int_equal(lab_process_pid(&lab, &region, LAB_REDIS), 0);
        assert_int_equal(lab_process_signal(&lab, &region, LAB_REDIS, SIGKILL), 0);
}

static void damaged_files_name_nobody(void **state)
{
        static const char *const texts[] = {"",    "\n",  "x",    "1 1",           "-1 5",
                                            "0 0", "123", "12 x", "99999999999 1", "4194305 1"};
        (void)state;
        for (size_t i = 0; i < COUNT_OF(texts); i++) {
                file_make("redis", texts[i]);
                assert_int_equal(lab_process_pid(&lab, &region, LAB_REDIS), 0);
                assert_int_equal(lab_process_signal(&lab, &region, LAB_REDIS, 0), 0);
        }
}

/* The pid lives, but began at another time: a stranger that got the number. */
static void a_reused_pid_is_left_alone(void **state)
{
        struct proc proc;
        char text[64];
        pid_t pid = stranger_start();
        (void)state;
        assert_true(proc_read(pid, &proc));
        for (int off = -1; off <= 1; off += 2) {
                snprintf(text, sizeof text, "%d %llu\n", (int)pid,
                         (unsigned long long)proc.start + (unsigned long long)(long long)off);
                file_make("redis", text);
                assert_int_equal(lab_process_pid(&lab, &region, LAB_REDIS), 0);
                assert_int_equal(lab_process_signal(&lab, &region, LAB_REDIS, SIGKILL), 0);
                assert_int_equal(lab_process_signal(&lab, &region, LAB_REDIS, SIGTERM), 0);
        }
        assert_int_equal(kill(pid, 0), 0);
        assert_int_equal(waitpid(pid, NULL, WNOHANG), 0);
        stranger_end(pid);
}

static void the_noted_process_is_found_and_ended(void **state)
{
        struct proc proc;
        char text[64];
        pid_t pid = stranger_start();
        (void)state;
        assert_true(proc_read(pid, &proc));
        snprintf(text, sizeof text, "%d %llu\n", (int)pid, (unsigned long long)proc.start);
        file_make("redis", text);
        assert_int_equal(lab_process_pid(&lab, &region, LAB_REDIS), pid);
        while (proc_read(pid, &proc) && proc.session != pid)
                usleep(1000);
        assert_int_equal(lab_process_signal(&lab, &region, LAB_REDIS, SIGKILL), 1);
        assert_int_equal(waitpid(pid, NULL, 0), pid);
        assert_int_equal(lab_process_pid(&lab, &region, LAB_REDIS), 0);
}

/* A dead child that nobody has waited for yet does not count as alive. */
static void a_zombie_is_dead(void **state)
{
        struct proc proc;
        char text[64];
        pid_t pid = stranger_start();
        (void)state;
        assert_true(proc_read(pid, &proc));
        snprintf(text, sizeof text, "%d %llu\n", (int)pid, (unsigned long long)proc.start);
        file_make("redis", text);
        kill(pid, SIGKILL);
        siginfo_t info;
        assert_int_equal(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
        assert_int_equal(lab_process_pid(&lab, &region, LAB_REDIS), 0);
        assert_int_equal(lab_process_signal(&lab, &region, LAB_REDIS, 0), 0);
        waitpid(pid, NULL, 0);
}

static void a_program_that_is_not_there_is_told(void **state)
{
        (void)state;
        snprintf(lab.programs[LAB_REDIS], LAB_PATH_MAX, "/nonexistent/redis-server");
        assert_false(lab_process_start(&lab, &region, LAB_REDIS));
        assert_false(lab_process_alive(&lab, &region, LAB_REDIS));
        while (waitpid(-1, NULL, WNOHANG) > 0)
                continue;
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(nothing_is_noted, setup, teardown),
                cmocka_unit_test_setup_teardown(damaged_files_name_nobody, setup, teardown),
                cmocka_unit_test_setup_teardown(a_reused_pid_is_left_alone, setup, teardown),
                cmocka_unit_test_setup_teardown(the_noted_process_is_found_and_ended, setup,
                                                teardown),
                cmocka_unit_test_setup_teardown(a_zombie_is_dead, setup, teardown),
                cmocka_unit_test_setup_teardown(a_program_that_is_not_there_is_told, setup,
                                                teardown),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
