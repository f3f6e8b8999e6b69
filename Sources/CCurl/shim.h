#include <curl/curl.h>

/* curl_easy_setopt and curl_easy_getinfo are variadic, which Swift cannot call. */
static inline CURLcode tollgate_curl_setopt_long(CURL *handle, CURLoption option, long value) {
    return curl_easy_setopt(handle, option, value);
}
static inline CURLcode tollgate_curl_setopt_pointer(CURL *handle, CURLoption option, const void *value) {
    return curl_easy_setopt(handle, option, value);
}
typedef size_t (*tollgate_curl_write)(char *bytes, size_t size, size_t count, void *context);
static inline CURLcode tollgate_curl_setopt_write(CURL *handle, tollgate_curl_write callback, void *context) {
    CURLcode code = curl_easy_setopt(handle, CURLOPT_WRITEFUNCTION, callback);
    return code == CURLE_OK ? curl_easy_setopt(handle, CURLOPT_WRITEDATA, context) : code;
}
static inline CURLcode tollgate_curl_getinfo_long(CURL *handle, CURLINFO info, long *value) {
    return curl_easy_getinfo(handle, info, value);
}

/* Initialised once by a static in Swift; CURL_GLOBAL_DEFAULT is a macro that Swift does not import. */
static inline CURLcode tollgate_curl_global_init(void) {
    return curl_global_init(CURL_GLOBAL_DEFAULT);
}
/* Copies the bytes, so the caller's buffer need not outlive the call. */
static inline CURLcode tollgate_curl_setopt_body(CURL *handle, const void *bytes, long count) {
    CURLcode code = curl_easy_setopt(handle, CURLOPT_POSTFIELDSIZE, count);
    return code == CURLE_OK ? curl_easy_setopt(handle, CURLOPT_COPYPOSTFIELDS, bytes) : code;
}
