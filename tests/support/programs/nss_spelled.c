/* A name service that spells otherwise, as a domain's does: ALICE and CORP\alice are alice.
   It knows the users of /etc/passwd alone, and answers with what is written there. */

#include <errno.h>
#include <nss.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

enum nss_status _nss_spelled_getpwnam_r(const char *name, struct passwd *result, char *buffer,
                                        size_t length, int *errnop);

enum nss_status _nss_spelled_getpwnam_r(const char *name, struct passwd *result, char *buffer,
                                        size_t length, int *errnop)
{
    const char *domain = "CORP\\";
    struct passwd *found = NULL;
    FILE *file = fopen("/etc/passwd", "re");

    if (file == NULL) {
        *errnop = errno;
        return NSS_STATUS_UNAVAIL;
    }
    if (strncasecmp(name, domain, strlen(domain)) == 0)
        name += strlen(domain);
    while (fgetpwent_r(file, result, buffer, length, &found) == 0)
        if (strcasecmp(found->pw_name, name) == 0)
            break;
        else
            found = NULL;
    fclose(file);
    return found != NULL ? NSS_STATUS_SUCCESS : NSS_STATUS_NOTFOUND;
}
