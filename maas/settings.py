"""Every setting of every process, read from the environment once. The README lists them all."""

import os
import secrets
from pathlib import Path

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
ALLOWED_HOSTS = env.words("MAAS_ALLOWED_HOSTS", "127.0.0.1,localhost,[::1]")
CSRF_TRUSTED_ORIGINS = env.words("MAAS_TRUSTED_ORIGINS")
SECURE = MAAS_URL.startswith("https://")
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = SECURE
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = "Lax"
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if env.flag("MAAS_BEHIND_PROXY") else None
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [NONE],
        "script-src": [SELF],
        "style-src": [SELF],
        "img-src": [SELF, "data:", "blob:"],
        "connect-src": [SELF],
        "font-src": [SELF],
        "form-action": [SELF],
        "base-uri": [NONE],
        "frame-ancestors": [NONE],
    }
}

# ---------- parts ----------
INSTALLED_APPS = [
    "maas",
    "apps.accounts", "apps.usage", "apps.catalog", "apps.files", "apps.inference", "apps.jobs", "apps.dashboard",
    "django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions", "django.contrib.messages",
    "django.contrib.staticfiles", "django.contrib.humanize",
    "allauth", "allauth.account",
    "rest_framework", "drf_spectacular", "drf_spectacular_sidecar",
    "django_htmx", "csp",
]  # fmt: skip
MIDDLEWARE = [
    "maas.requests.RequestId",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "csp.middleware.CSPMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "apps.accounts.middleware.CurrentTenant",
]
ROOT_URLCONF = "maas.urls"
WSGI_APPLICATION = "maas.wsgi.application"
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
    "default": {"BACKEND": "maas.storage.FolderStorage", "OPTIONS": {"location": str(MAAS_HOME / "storage")}},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}
FILE_UPLOAD_TEMP_DIR = None
DATA_UPLOAD_MAX_MEMORY_SIZE = 32 * 2**20  # bytes of a JSON body: 128 pictures as base64
FILE_UPLOAD_HANDLERS = ["django.core.files.uploadhandler.TemporaryFileUploadHandler"]

# ---------- accounts ----------
AUTH_USER_MODEL = "accounts.User"
AUTHENTICATION_BACKENDS = ["allauth.account.auth_backends.AuthenticationBackend"]
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
ACCOUNT_EMAIL_VERIFICATION = "optional"
ACCOUNT_EMAIL_SUBJECT_PREFIX = ""
ACCOUNT_LOGOUT_ON_GET = False
ACCOUNT_SESSION_REMEMBER = True
# The account page also counts failed sign-ins by address and e-mail in the shared cache.
ACCOUNT_RATE_LIMITS = {} if env.flag("MAAS_NO_LOGIN_LIMITS") else {"login_failed": "10/m/ip,5/5m/key", "signup": "20/m/ip"}
MAAS_SIGNUP_OPEN = env.flag("MAAS_SIGNUP_OPEN", True)
LOGIN_URL = "account_login"
LOGIN_REDIRECT_URL = "overview"
ACCOUNT_LOGOUT_REDIRECT_URL = "account_login"

# ---------- mail ----------
EMAIL_HOST = env.text("MAAS_EMAIL_HOST", "")
EMAIL_BACKEND = f"django.core.mail.backends.{'smtp' if EMAIL_HOST else 'filebased'}.EmailBackend"
EMAIL_FILE_PATH = str(MAAS_HOME / "mail")
EMAIL_PORT = env.number("MAAS_EMAIL_PORT", 587)
EMAIL_HOST_USER = env.text("MAAS_EMAIL_USER", "")
EMAIL_HOST_PASSWORD = env.text("MAAS_EMAIL_PASSWORD", "")
EMAIL_USE_TLS = env.flag("MAAS_EMAIL_TLS", bool(EMAIL_HOST))
DEFAULT_FROM_EMAIL = env.text("MAAS_EMAIL_FROM", "maas <maas@localhost>")

# ---------- limits of a call ----------
MAAS_QUEUE_LIMIT = env.number("MAAS_QUEUE_LIMIT", 1024, least=1)  # inputs waiting for one version, over all tenants
MAAS_BATCH_LIMIT = env.number("MAAS_BATCH_LIMIT", 32, least=1)  # inputs that the online server runs at once
MAAS_FILE_LIMIT = env.number("MAAS_FILE_LIMIT", 200 * 2**20, least=1)  # bytes of an uploaded file

# ---------- devices ----------
MAAS_DEVICE = env.text("MAAS_DEVICE", "cpu")
MAAS_THREADS = env.number("MAAS_THREADS", max(1, (os.cpu_count() or 2) // 2), least=1)

# ---------- REST ----------
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "apps.accounts.authentication.KeyAuthentication",
        "apps.accounts.authentication.MemberAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["maas.wire.HasScope"],
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
    "SCHEMA_PATH_PREFIX": "/v1",
    "PREPROCESSING_HOOKS": ["maas.openapi.only_rest"],
    "POSTPROCESSING_HOOKS": ["drf_spectacular.hooks.postprocess_schema_enums", "maas.openapi.with_errors"],
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
