"""Every setting of every process, read from the environment once. The README lists them all."""

import logging
import os
import secrets
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

from csp.constants import NONE, SELF
from django.utils.translation import gettext_lazy as _

from maas import env, logs

BASE_DIR = Path(__file__).resolve().parent.parent
MAAS_HOME = Path(env.text("MAAS_HOME", str(BASE_DIR / ".maas"))).resolve()
MAAS_MODELS = Path(env.text("MAAS_MODELS", str(BASE_DIR / "models"))).resolve()
MAAS_URL = env.text("MAAS_URL", "http://127.0.0.1:8000").rstrip("/")

# ---------- security ----------
DEBUG = env.flag("MAAS_DEBUG")
SECRET_KEY = env.text("MAAS_SECRET_KEY", secrets.token_urlsafe(48) if DEBUG or "DATABASE_URL" not in os.environ else None)
# Seal stored secrets: the first seals, all of them open (docs/operations.md, "Rotating keys").
MAAS_SEALING_KEYS = env.words("MAAS_SEALING_KEYS") or [SECRET_KEY]
ALLOWED_HOSTS = env.words("MAAS_ALLOWED_HOSTS", "127.0.0.1,localhost,[::1]")
CSRF_TRUSTED_ORIGINS = env.words("MAAS_TRUSTED_ORIGINS")
SECURE = MAAS_URL.startswith("https://")
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = SECURE
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = "Lax"
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if env.flag("MAAS_BEHIND_PROXY") else None
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
MAAS_OIDC_URL = env.text("MAAS_OIDC_URL", "").rstrip("/")  # the issuer
MAAS_OIDC_ORIGIN = ["{0.scheme}://{0.netloc}".format(urlsplit(MAAS_OIDC_URL))] if MAAS_OIDC_URL else []
# Where a form of ours may lead: Stripe's pages, once there is Stripe.
MAAS_STRIPE_PAGES = ["https://checkout.stripe.com", "https://billing.stripe.com"] if env.text("STRIPE_SECRET_KEY", "") else []
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [NONE],
        "script-src": [SELF],
        "style-src": [SELF],
        "img-src": [SELF, "data:", "blob:"],
        "connect-src": [SELF],
        "font-src": [SELF],
        "form-action": [SELF, *MAAS_OIDC_ORIGIN, *MAAS_STRIPE_PAGES],
        "base-uri": [NONE],
        "frame-ancestors": [NONE],
    }
}

# ---------- parts ----------
INSTALLED_APPS = [
    "maas",
    "apps.idempotency", "apps.accounts", "apps.audit", "apps.webhooks",
    "apps.usage", "apps.catalog", "apps.files", "apps.billing", "apps.payments", "apps.inference", "apps.jobs", "apps.dashboard",
    "django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions", "django.contrib.messages",
    "django.contrib.staticfiles", "django.contrib.humanize",
    "allauth", "allauth.account", "allauth.mfa", "allauth.usersessions",
    "allauth.socialaccount", "allauth.socialaccount.providers.openid_connect", "axes",
    "rest_framework", "drf_spectacular", "drf_spectacular_sidecar",
    "django_htmx", "csp",
    # The operator's admin; its pages are loaded with the URLconf alone (apps/accounts/operator_urls.py).
    "unfold.apps.BasicAppConfig", "django.contrib.admin.apps.SimpleAdminConfig",
]  # fmt: skip
MIDDLEWARE = [
    "maas.requests.RequestId",
    "maas.metering.TellLimits",
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.common.CommonMiddleware",
    "maas.browsers.BrowsersBegin",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "csp.middleware.CSPMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "apps.accounts.sessions.NoteSessions",
    "axes.middleware.AxesMiddleware",
    "maas.browsers.BrowsersEnd",
    "apps.accounts.middleware.CurrentTenant",
]
ROOT_URLCONF = "maas.urls"
WSGI_APPLICATION = "maas.wsgi.application"
MAAS_LANE = "apps.inference.lane.Lane"
MAAS_WEB_THREADS = env.number("MAAS_WEB_THREADS", 64, least=1)  # of one process, for what does not take the fast lane
APPEND_SLASH = False
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "frontend" / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    }
]

# ---------- stores ----------
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        **(env.database("DATABASE_URL") if "DATABASE_URL" in os.environ else {"NAME": "maas"}),
        "CONN_MAX_AGE": 600,
        "CONN_HEALTH_CHECKS": True,
        # One login, three roles: the role decides which rows a statement may see (docs/operations.md).
        "OPTIONS": {"assume_role": env.text("MAAS_DB_ROLE", "maas_app"), "application_name": "maas", "connect_timeout": 5},
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
REDIS_URL = env.text("REDIS_URL", "redis://127.0.0.1:6379/0")
STORAGES = {
    "default": env.storage("MAAS_STORAGE", MAAS_HOME / "storage"),  # docs/storage.md
    # Signed ends of the audit log's chains: best on another disk or machine (docs/audit.md).
    "anchors": env.storage("MAAS_ANCHORS", MAAS_HOME / "anchors"),
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}
CACHES = {"default": {"BACKEND": "maas.cache.OpenCache", "LOCATION": REDIS_URL, "KEY_PREFIX": "maas"}}
FILE_UPLOAD_TEMP_DIR = None
DATA_UPLOAD_MAX_MEMORY_SIZE = 32 * 2**20  # bytes of a JSON body: 128 pictures as base64
FILE_UPLOAD_HANDLERS = ["django.core.files.uploadhandler.TemporaryFileUploadHandler"]

# ---------- accounts ----------
AUTH_USER_MODEL = "accounts.User"
AUTHENTICATION_BACKENDS = ["axes.backends.AxesStandaloneBackend", "allauth.account.auth_backends.AuthenticationBackend"]
PASSWORD_HASHERS = ["django.contrib.auth.hashers.ScryptPasswordHasher", "django.contrib.auth.hashers.PBKDF2PasswordHasher"]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}", "OPTIONS": options}
    for name, options in [
        ("UserAttributeSimilarityValidator", {}),
        ("MinimumLengthValidator", {"min_length": 12}),
        ("CommonPasswordValidator", {}),
    ]
]
ACCOUNT_ADAPTER = "apps.accounts.adapter.AccountAdapter"
ACCOUNT_LOGIN_METHODS = {"email"}
ACCOUNT_SIGNUP_FIELDS = ["email*", "password1*"]
ACCOUNT_SIGNUP_FORM_CLASS = "apps.accounts.forms.OrganisationForm"
ACCOUNT_USER_MODEL_USERNAME_FIELD = None
ACCOUNT_UNIQUE_EMAIL = True
# Without a mail server the confirmation lands in a file, which a newcomer should not have to look for.
ACCOUNT_EMAIL_VERIFICATION = env.choice(
    "MAAS_EMAIL_VERIFICATION", "mandatory" if env.text("MAAS_EMAIL_HOST", "") else "optional", "mandatory", "optional"
)
ACCOUNT_LOGIN_ON_EMAIL_CONFIRMATION = True
ACCOUNT_EMAIL_NOTIFICATIONS = True
ACCOUNT_REAUTHENTICATION_REQUIRED = True
ACCOUNT_EMAIL_SUBJECT_PREFIX = ""
ACCOUNT_LOGOUT_ON_GET = False
ACCOUNT_SESSION_REMEMBER = True
LOGIN_LIMITS = not env.flag("MAAS_NO_LOGIN_LIMITS")
# Failed sign-ins are axes' matter; these slow down everything else that one could flood, in the shared cache.
ACCOUNT_RATE_LIMITS = {"login_failed": None} if LOGIN_LIMITS else False
MFA_RATE_LIMITS: dict[str, str] | bool = {} if LOGIN_LIMITS else False
MAAS_SIGNUP_OPEN = env.flag("MAAS_SIGNUP_OPEN", True)
LOGIN_URL = "account_login"
LOGIN_REDIRECT_URL = "overview"
ACCOUNT_LOGOUT_REDIRECT_URL = "account_login"
MFA_ADAPTER = "apps.accounts.passkeys.MfaAdapter"
MFA_FORMS = {name: f"apps.accounts.sign_in_forms.{name.title()}Form" for name in ("authenticate", "reauthenticate")}
MFA_SUPPORTED_TYPES = ["totp", "webauthn", "recovery_codes"]
MFA_PASSKEY_LOGIN_ENABLED = True
MFA_RECOVERY_CODES_SHOW_ONCE = True
MFA_TOTP_TOLERANCE = 1  # the code before and after the current one fit too: clocks differ, and typing takes time
USERSESSIONS_ADAPTER = "apps.accounts.sessions.SessionsAdapter"
USERSESSIONS_TRACK_ACTIVITY = True  # by our own middleware, which writes once a minute

# ---------- lock-out ----------
AXES_ENABLED = LOGIN_LIMITS
AXES_FAILURE_LIMIT = env.number("MAAS_LOCKOUT_FAILURES", 10, least=1)
AXES_COOLOFF_TIME = timedelta(minutes=env.number("MAAS_LOCKOUT_MINUTES", 15, least=1))
AXES_LOCKOUT_PARAMETERS = "apps.accounts.lockout.counted_by"
AXES_USERNAME_CALLABLE = "apps.accounts.lockout.counted_name"
AXES_CLIENT_IP_CALLABLE = "apps.accounts.lockout.address"
AXES_LOCKOUT_CALLABLE = "apps.accounts.lockout.answer"
AXES_RESET_ON_SUCCESS = True
AXES_RESET_COOL_OFF_ON_FAILURE_DURING_LOCKOUT = False
AXES_DISABLE_ACCESS_LOG = True  # the audit log has it
AXES_VERBOSE = False
AXES_SENSITIVE_PARAMETERS = [
    "username", "ip_address", "login", "email", "code", "credential", "oldpassword", "password1", "password2", "next",
    "csrfmiddlewaretoken",
]  # fmt: skip

# ---------- OpenID Connect ----------
MAAS_OIDC_NAME = env.text("MAAS_OIDC_NAME", "OpenID Connect")  # on the button
SOCIALACCOUNT_ADAPTER = "apps.accounts.oidc.OidcAdapter"
SOCIALACCOUNT_STORE_TOKENS = False
SOCIALACCOUNT_EMAIL_AUTHENTICATION_AUTO_CONNECT = True
SOCIALACCOUNT_PROVIDERS = {
    "openid_connect": {
        "OAUTH_PKCE_ENABLED": True,
        "APPS": [
            {
                "provider_id": "oidc",
                "name": MAAS_OIDC_NAME,
                "client_id": env.text("MAAS_OIDC_CLIENT_ID", None if MAAS_OIDC_URL else ""),
                "secret": env.text("MAAS_OIDC_CLIENT_SECRET", None if MAAS_OIDC_URL else ""),
                "settings": {"server_url": MAAS_OIDC_URL},
            }
        ]
        if MAAS_OIDC_URL
        else [],
    }
}

# ---------- mail ----------
EMAIL_HOST = env.text("MAAS_EMAIL_HOST", "")
EMAIL_BACKEND = f"django.core.mail.backends.{'smtp' if EMAIL_HOST else 'filebased'}.EmailBackend"
EMAIL_FILE_PATH = str(MAAS_HOME / "mail")
EMAIL_PORT = env.number("MAAS_EMAIL_PORT", 587)
EMAIL_HOST_USER = env.text("MAAS_EMAIL_USER", "")
EMAIL_HOST_PASSWORD = env.text("MAAS_EMAIL_PASSWORD", "")
EMAIL_TIMEOUT = 10  # seconds
EMAIL_USE_TLS = env.flag("MAAS_EMAIL_TLS", bool(EMAIL_HOST))
DEFAULT_FROM_EMAIL = env.text("MAAS_EMAIL_FROM", "maas <maas@localhost>")

# ---------- the operator's admin (docs/operator.md) ----------
UNFOLD = {
    "SITE_TITLE": _("maas operator"),
    "SITE_HEADER": _("maas operator"),
    "SITE_SYMBOL": "admin_panel_settings",
    "SITE_FAVICONS": [{"rel": "icon", "type": "image/svg+xml", "href": "/static/favicon.svg"}],
    "COLORS": {
        # The dashboard's accent, from light to dark.
        "primary": {
            "50": "oklch(97% .014 255)",
            "100": "oklch(93% .032 255)",
            "200": "oklch(88% .059 255)",
            "300": "oklch(81% .1 255)",
            "400": "oklch(71% .15 257)",
            "500": "oklch(62% .19 260)",
            "600": "oklch(53% .2 262)",
            "700": "oklch(47% .2 263)",
            "800": "oklch(41% .17 265)",
            "900": "oklch(36% .13 266)",
            "950": "oklch(27% .09 267)",
        }
    },
    "SHOW_HISTORY": False,
    "SHOW_VIEW_ON_SITE": False,
    "SIDEBAR": {"navigation": "apps.accounts.operator_site.navigation"},
    "ACCOUNT": {"navigation": [{"title": _("Your account"), "link": "/account"}]},
}

# ---------- limits of a call ----------
MAAS_QUEUE_LIMIT = env.number("MAAS_QUEUE_LIMIT", 1024, least=1)  # inputs waiting for one version, over all tenants
MAAS_BATCH_LIMIT = env.number("MAAS_BATCH_LIMIT", 32, least=1)  # inputs that the online server runs at once
MAAS_PLANS = env.text("MAAS_PLANS", "")  # a TOML file that changes figures of apps/billing/plans.py
MAAS_FILE_LIMIT = env.number("MAAS_FILE_LIMIT", 200 * 2**20, least=1)  # bytes of an uploaded file

# ---------- webhooks ----------
# Seconds from each failed attempt to the next: together about 28 h.
MAAS_WEBHOOK_RETRIES = env.numbers("MAAS_WEBHOOK_RETRIES", "5,300,1800,7200,18000,36000,36000")
MAAS_WEBHOOK_ALLOW = env.networks("MAAS_WEBHOOK_ALLOW")  # that may be called although they are not public

# ---------- payments ----------
STRIPE_SECRET_KEY = env.text("STRIPE_SECRET_KEY", "")  # without it nothing is collected by Stripe
STRIPE_WEBHOOK_SECRET = env.text("STRIPE_WEBHOOK_SECRET", "")
MAAS_STRIPE_URL = env.text("MAAS_STRIPE_URL", "").rstrip("/")  # in place of Stripe's own, for tests
MAAS_STRIPE_TAX = env.flag("MAAS_STRIPE_TAX")  # Stripe Tax works out the tax of each invoice
MAAS_STRIPE_TIMEOUT = env.number("MAAS_STRIPE_TIMEOUT", 20, least=1)  # seconds of one call

# ---------- devices ----------
MAAS_DEVICE = env.text("MAAS_DEVICE", "cpu")
MAAS_THREADS = env.number("MAAS_THREADS", max(1, (os.cpu_count() or 2) // 2), least=1)
MAAS_MODEL_MEMORY_MB = env.number("MAAS_MODEL_MEMORY_MB", 2048, least=1)  # of the models that one process keeps loaded
MAAS_GPU_MEMORY_MB = env.number("MAAS_GPU_MEMORY_MB", 0, least=0)  # of one model on a GPU; 0 is no limit
MAAS_RUNNERS = env.number("MAAS_RUNNERS", 2, least=1)  # batches that one online server has in hand at once

# ---------- metrics ----------
MAAS_METRICS_ALLOW = env.networks("MAAS_METRICS_ALLOW", "127.0.0.0/8,::1")  # that may read /metrics
MAAS_METRICS_PORT = env.number("MAAS_METRICS_PORT", 0)  # of an online server that serves its own; 0: none

# ---------- REST ----------
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "apps.accounts.authentication.KeyAuthentication",
        "apps.accounts.authentication.MemberAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["maas.wire.HasScope"],
    "DEFAULT_THROTTLE_CLASSES": ["apps.billing.throttling.CountRequests"],
    "DEFAULT_RENDERER_CLASSES": ["maas.wire.OrjsonRenderer"],
    "DEFAULT_PARSER_CLASSES": ["maas.wire.JsonParser"],
    "DEFAULT_CONTENT_NEGOTIATION_CLASS": "maas.wire.FirstRenderer",
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "maas.api.render_exception",
    "UNAUTHENTICATED_USER": None,
}
SPECTACULAR_SETTINGS = {
    "TITLE": "maas",
    "DESCRIPTION": "Call and adapt machine-learning models over REST. Send `Authorization: Bearer maas_...` with every call.",
    "VERSION": "1",
    "OAS_VERSION": "3.1.0",
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_PERMISSIONS": ["rest_framework.permissions.AllowAny"],
    "SERVE_AUTHENTICATION": [],
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
    "ENUM_NAME_OVERRIDES": {
        "InvoiceStateEnum": "apps.billing.models.InvoiceState.values",
        "StateEnum": "apps.webhooks.models.State.values",
    },
    "SCHEMA_PATH_PREFIX": "/v1",
    "PREPROCESSING_HOOKS": ["maas.openapi.only_rest"],
    "POSTPROCESSING_HOOKS": ["drf_spectacular.hooks.postprocess_schema_enums", "maas.openapi.with_errors", "maas.openapi.with_idempotency"],
}

# ---------- language, time, files ----------
LANGUAGE_CODE = "en"
LANGUAGES = [("en", _("English"))]
TIME_ZONE = "UTC"
USE_TZ = True
STATIC_URL = "/static/"
STATIC_ROOT = None  # nothing is collected: WhiteNoise reads the packages
STATICFILES_DIRS = [BASE_DIR / "frontend" / "static"]
WHITENOISE_USE_FINDERS = True  # serves straight from the packages, so there is no collectstatic step to forget
WHITENOISE_AUTOREFRESH = DEBUG

LOGGING_CONFIG = None
logs.configure(json=env.flag("MAAS_JSON_LOGS"), level=env.text("MAAS_LOG_LEVEL", "INFO"))
logging.getLogger("axes").setLevel("WARNING")  # it reports every step of every sign-in
logging.getLogger("stripe").setLevel("WARNING")  # it reports every call, with what was asked
