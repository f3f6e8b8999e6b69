/// Certificates for tests, valid for a century: made by OpenSSL, of no worth anywhere else.
package enum TestCertificates {
    /// Signed ``good`` and ``otherName``.
    package static let authority = """
        -----BEGIN CERTIFICATE-----
        MIIBojCCAUmgAwIBAgIUeJD/T3zDo3P3jX0G2sZU5+GOwq8wCgYIKoZIzj0EAwIw
        JjEkMCIGA1UEAwwbVG9sbGdhdGUgdGVzdCBhdXRob3JpdHkgb25lMCAXDTI2MTEy
        MjIxMzAzMVoYDzIxMjYxMDI5MjEzMDMxWjAmMSQwIgYDVQQDDBtUb2xsZ2F0ZSB0
        ZXN0IGF1dGhvcml0eSBvbmUwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAAQMphom
        OMD1AqAUaA64U91q9Qzr48Knv85uIJWkajwA7SiWGzNGLVo7dp8MdZzum/fTW7P+
        6pcJQfIPzldsxUvxo1MwUTAdBgNVHQ4EFgQUZBD5/iE83+LwEpt8t73WHbMBYAEw
        HwYDVR0jBBgwFoAUZBD5/iE83+LwEpt8t73WHbMBYAEwDwYDVR0TAQH/BAUwAwEB
        /zAKBggqhkjOPQQDAgNHADBEAiBfPwy3ykYK4N28vGUypQFEE2Iz/2TixzD0ISal
        hgNWZwIgXt7BdJxGrdXu/Pwh5+7hFlcu/KOsJJmrNIixTGM1PXM=
        -----END CERTIFICATE-----
        """
    /// Signed ``foreign``.
    package static let otherAuthority = """
        -----BEGIN CERTIFICATE-----
        MIIBozCCAUmgAwIBAgIUCmnb/DI4b2BR085Lh+E+D4rYgHgwCgYIKoZIzj0EAwIw
        JjEkMCIGA1UEAwwbVG9sbGdhdGUgdGVzdCBhdXRob3JpdHkgdHdvMCAXDTI2MTEy
        MjIxMzAzMVoYDzIxMjYxMDI5MjEzMDMxWjAmMSQwIgYDVQQDDBtUb2xsZ2F0ZSB0
        ZXN0IGF1dGhvcml0eSB0d28wWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAASGeUY+
        S5Xc+c9IPLMMfbyZD9dfnp1JFR9Rpn6nG7mxRAol8nMMKEFZ3x0t19Y7DaIycjtg
        +t1RnPEXZfa/X8Xwo1MwUTAdBgNVHQ4EFgQU10ayXZ/v2Cjz7bbVcH2IPkGjQAsw
        HwYDVR0jBBgwFoAU10ayXZ/v2Cjz7bbVcH2IPkGjQAswDwYDVR0TAQH/BAUwAwEB
        /zAKBggqhkjOPQQDAgNIADBFAiEAjx00cUZFmuLeZA9Cv6oCGTUBQnlCEd+7qEc4
        SKDAhvcCIBltIJVjjVUXf4JHEIAXn+ZM9izNU6jC0VPj/moPcbUJ
        -----END CERTIFICATE-----
        """
    /// For `localhost` and `127.0.0.1`.
    package static let good = Pair(
        certificate: """
            -----BEGIN CERTIFICATE-----
            MIIBojCCAUigAwIBAgIULVOnYxRZ/YZ+5s8Kzf5p97W6ID8wCgYIKoZIzj0EAwIw
            JjEkMCIGA1UEAwwbVG9sbGdhdGUgdGVzdCBhdXRob3JpdHkgb25lMCAXDTI2MTEy
            MjIxMzAzMVoYDzIxMjYxMDI5MjEzMDMxWjAPMQ0wCwYDVQQDDARnb29kMFkwEwYH
            KoZIzj0CAQYIKoZIzj0DAQcDQgAE3pOzYbGEZDbt5EhPaW+spqYW2eB4BMpdGdwO
            JA0A2UPsOBHlE1tE2czpKQryL0yWsNMOZcnOJVsmEZuLdAdq7qNpMGcwGgYDVR0R
            BBMwEYIJbG9jYWxob3N0hwR/AAABMAkGA1UdEwQCMAAwHQYDVR0OBBYEFFPFFMNL
            oetfre35a/Owb0LOwFcQMB8GA1UdIwQYMBaAFGQQ+f4hPN/i8BKbfLe91h2zAWAB
            MAoGCCqGSM49BAMCA0gAMEUCIQCkv55v3hgPASthTBNuE1S4LQEYtEroa0HraHyU
            /PPYIAIgFmzICqBA82fyoYJrQ30C2piBSwGooGU1KJUicVoo3AI=
            -----END CERTIFICATE-----
            """,
        key: """
            -----BEGIN PRIVATE KEY-----
            MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgHcBQLrvwy9h6z6J+
            GW3lu/LfCNXexNFfPdYrA/iV3sGhRANCAATek7NhsYRkNu3kSE9pb6ymphbZ4HgE
            yl0Z3A4kDQDZQ+w4EeUTW0TZzOkpCvIvTJaw0w5lyc4lWyYRm4t0B2ru
            -----END PRIVATE KEY-----
            """)
    /// For `other.example`.
    package static let otherName = Pair(
        certificate: """
            -----BEGIN CERTIFICATE-----
            MIIBojCCAUegAwIBAgIULVOnYxRZ/YZ+5s8Kzf5p97W6IEAwCgYIKoZIzj0EAwIw
            JjEkMCIGA1UEAwwbVG9sbGdhdGUgdGVzdCBhdXRob3JpdHkgb25lMCAXDTI2MTEy
            MjIxMzAzMVoYDzIxMjYxMDI5MjEzMDMxWjAQMQ4wDAYDVQQDDAVvdGhlcjBZMBMG
            ByqGSM49AgEGCCqGSM49AwEHA0IABHYu1HUitXorVyPWQeuaB9oh3yG7cnobBdDB
            JVsboEXDZdRgyIID7Y+A/7aDSZZ3xymt1koUJMLQMIIqrv5UOXqjZzBlMBgGA1Ud
            EQQRMA+CDW90aGVyLmV4YW1wbGUwCQYDVR0TBAIwADAdBgNVHQ4EFgQUSevsnKyi
            thhflYo+b3qJJS6ZBvcwHwYDVR0jBBgwFoAUZBD5/iE83+LwEpt8t73WHbMBYAEw
            CgYIKoZIzj0EAwIDSQAwRgIhAMyCN14Cp5kAEmIFli59Z1sZMqdf2cYoM5oAl86x
            BMX4AiEAi4cBfGUhbPKxY/RrVWmvfMu2SeNenQ8p9hSSZXP8DPU=
            -----END CERTIFICATE-----
            """,
        key: """
            -----BEGIN PRIVATE KEY-----
            MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg6JFTIpSZye3NsWWQ
            Xu86Z6qYG9v2pXWXeDz2g6nISgyhRANCAAR2LtR1IrV6K1cj1kHrmgfaId8hu3J6
            GwXQwSVbG6BFw2XUYMiCA+2PgP+2g0mWd8cprdZKFCTC0DCCKq7+VDl6
            -----END PRIVATE KEY-----
            """)
    /// For `localhost` and `127.0.0.1`, by ``otherAuthority``.
    package static let foreign = Pair(
        certificate: """
            -----BEGIN CERTIFICATE-----
            MIIBpTCCAUugAwIBAgIUSnFjAPr78M9pSONDQklejIAFESYwCgYIKoZIzj0EAwIw
            JjEkMCIGA1UEAwwbVG9sbGdhdGUgdGVzdCBhdXRob3JpdHkgdHdvMCAXDTI2MTEy
            MjIxMzAzMVoYDzIxMjYxMDI5MjEzMDMxWjASMRAwDgYDVQQDDAdmb3JlaWduMFkw
            EwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEdE1xCmMlsQh1vOUuLywRIWIwHxN/8PQT
            /HXYeL9zTUDLyVUEkChyPoDnnQZIfGFwPSXYUebPjIX7p/CZyF3rsqNpMGcwGgYD
            VR0RBBMwEYIJbG9jYWxob3N0hwR/AAABMAkGA1UdEwQCMAAwHQYDVR0OBBYEFCmH
            EiPTcpxNd5OOw+/AeJFv7etvMB8GA1UdIwQYMBaAFNdGsl2f79go8+221XB9iD5B
            o0ALMAoGCCqGSM49BAMCA0gAMEUCIQDwL/YBbDphyuXgnbzkT7I8Qz783Dd307b0
            X5e1JM6v/gIgQL8Z/qRfZPpwa0GumG7oh8N80vqCY9lypwWOnnYNDmI=
            -----END CERTIFICATE-----
            """,
        key: """
            -----BEGIN PRIVATE KEY-----
            MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgwv6AfHVmU4Cy6t0E
            xXJdMOZiOcFZD2pseMU+mWfGAWmhRANCAAR0TXEKYyWxCHW85S4vLBEhYjAfE3/w
            9BP8ddh4v3NNQMvJVQSQKHI+gOedBkh8YXA9JdhR5s+Mhfun8JnIXeuy
            -----END PRIVATE KEY-----
            """)

    package struct Pair: Sendable {
        package let certificate: String
        package let key: String
    }
}
